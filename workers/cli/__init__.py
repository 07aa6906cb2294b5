"""The command line: `backhaul`. One file for each group of commands; `program.py` puts them together."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """The entry point of `backhaul`."""
    from workers.cli.program import run

    raise SystemExit(run())
