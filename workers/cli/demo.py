"""backhaul demo: the whole thing, in a folder of its own, in about a minute."""

from __future__ import annotations

from typing import Annotated

import typer

from workers.cli.options import AsJson
from workers.cli.output import say_json
from workers.demo.stage import Stage
from workers.demo.story import play
from workers.demo.telling import Telling

NEXT = """
What to try next, with a database of yours:
  backhaul up --server --database sqlite:///app.db     a server and a replica in this folder
  backhaul status                                      how far it is, and what is open
  backhaul why TABLE KEY                               why a record is not synced yet
  backhaul condition set unmetered off                 and see the media queue close
  backhaul doctor                                      when something is odd
"""


def add_to(program: typer.Typer) -> None:
    program.command()(demo)


def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the folder there, to look at.")] = False,
    as_json: AsJson = False,
) -> None:
    """Play a day of two replicas with real processes: offline, online, photos, a merge, a lost broker. Exit status 0
    only if both replicas and the server end up equal; nothing is left running."""
    tell = Telling(quiet=as_json)
    stage = Stage()
    try:
        play(stage, tell)
    finally:
        tell.say("\nEnding every process" + (f"; the folder stays: {stage.folder}" if keep else "."))
        stage.strike(keep=keep)
    if as_json:
        say_json({"equal": True, "scenes": tell.scenes})
    else:
        tell.summary()
        print(NEXT)
