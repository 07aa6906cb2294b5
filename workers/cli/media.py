"""backhaul media: files that travel apart from the records."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from backhaul.client import Media
from backhaul.replica import checkpoint
from workers.cli.here import opened
from workers.cli.options import AsJson, Home
from workers.cli.output import make_table, say_json, say_table, size


def add_to(program: typer.Typer) -> None:
    group = typer.Typer(help="Files on their way to the server.", no_args_is_help=True)
    group.command()(put)
    group.command("list")(list_)
    group.command()(retry)
    program.add_typer(group, name="media")


def put(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...")], *, home: Home = None, as_json: AsJson = False
) -> None:
    """Upload files in the background, each as work of its own, when the conditions of its queue hold."""
    with opened(home) as here:
        with here.database.reading() as connection:
            checkpoint.read(connection)
        media = Media(here.database, here.bell, here.clock)
        uploads = [media.put(file) for file in files]
    if as_json:
        return say_json({"uploads": [asdict(one) for one in uploads]})
    for one in uploads:
        print(f"{one.id}  {one.name}, {size(one.size)}")
    return print("see how far they are: backhaul media list; why one waits: backhaul why ID")


def retry(upload: Annotated[str, typer.Argument(metavar="ID")], *, home: Home = None, as_json: AsJson = False) -> None:
    """Put the file of a parked upload once more, as it is now: after what was wrong has been put right."""
    with opened(home) as here:
        again = Media(here.database, here.bell, here.clock).retry(upload)
    if as_json:
        return say_json({"uploads": [asdict(again)]})
    return print(f"{again.id}  {again.name}, {size(again.size)}")


def list_(*, home: Home = None, as_json: AsJson = False) -> None:
    """The files, how far each is, and why it does not go on."""
    with opened(home) as here:
        uploads = Media(here.database, here.bell, here.clock).list()
    if as_json:
        return say_json({"uploads": [asdict(one) for one in uploads]})
    table = make_table("id", "file", "size", "state", "sent", "by queue", "reason")
    for one in uploads:
        sent = f"{100 * one.sent // one.size if one.size else 100} %"
        table.add_row(one.id, one.name, size(one.size), one.state, sent, one.queue or "-", one.reason or "-")
    return say_table(table) if uploads else print("no file was put yet: backhaul media put FILE")
