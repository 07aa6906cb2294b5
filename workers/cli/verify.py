"""backhaul verify: hold this replica and the server against each other."""

from __future__ import annotations

from typing import Any

import typer

from backhaul.errors import TryLater
from backhaul.replica.reconcile import Comparison, compare
from workers.cli.here import opened
from workers.cli.options import AsJson, Home
from workers.cli.output import make_table, say_json, say_table

DIFFERENT = 1


def add_to(program: typer.Typer) -> None:
    program.command()(verify)


def verify(*, home: Home = None, as_json: AsJson = False) -> None:
    """Compare the number of records and a fingerprint of every table with the server's; nothing is changed.

    Exit status: 0 equal, 1 different, 75 when they cannot be compared just now.
    """
    with opened(home) as here:
        compared = compare(here.database, here.remote, context=_Undisturbed())
    if as_json:
        say_json({"equal": compared.equal, "moving": compared.moving, "tables": _shown(compared)})
    elif compared.moving is None:
        _say(compared)
    if compared.moving is not None:
        if as_json:
            raise typer.Exit(TryLater.exit_status)
        raise TryLater(f"not to be compared just now: {compared.moving}", hint="backhaul sync --wait, then again")
    raise typer.Exit(0 if compared.equal else DIFFERENT)


class _Undisturbed:
    """Nobody stops it but Ctrl-C."""

    def check(self) -> None:
        pass

    def progress(self, said: dict[str, Any]) -> None:
        pass


def _shown(compared: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "table": one.table,
            "equal": one.equal,
            "here": _side(one.here),
            "there": _side(one.there),
            "not_utf8": {"rows": one.not_utf8.rows, "keys": one.not_utf8.keys},
        }
        for one in compared.tables
    ]


def _side(side: tuple[int, str] | None) -> dict[str, Any] | None:
    return None if side is None else {"count": side[0], "fingerprint": side[1]}


def _say(compared: Comparison) -> None:
    table = make_table("table", "here", "fingerprint", "there", "fingerprint", "")
    for one in compared.tables:
        table.add_row(one.table, *_cells(one.here), *_cells(one.there), "equal" if one.equal else "DIFFERENT")
    say_table(table)
    for one in compared.tables:
        if one.not_utf8.rows:
            named = ", ".join(one.not_utf8.keys)
            print(f"{one.table}: {one.not_utf8.rows} rows hold text that is no UTF-8, and can never be equal: {named}")
    differing = [one.table for one in compared.tables if not one.equal]
    if differing:
        print(f"different: {', '.join(differing)}; backhaul reconcile --wait pulls, pushes and compares again")
    else:
        print("equal: this replica and the server hold the same records")


def _cells(side: tuple[int, str] | None) -> tuple[str, str]:
    return ("-", "-") if side is None else (str(side[0]), side[1][:16])
