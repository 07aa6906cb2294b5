"""backhaul version."""

from __future__ import annotations

import typer

from workers.cli.options import AsJson
from workers.cli.output import say_json


def add_to(program: typer.Typer) -> None:
    program.command()(version)


def version(*, as_json: AsJson = False) -> None:
    """Which Backhaul this is."""
    from importlib import metadata

    number = metadata.version("backhaul")
    if as_json:
        say_json({"version": number})
    else:
        print(number)
