"""backhaul parked: the changes that were refused for good, and what a person does about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from backhaul.errors import Misused
from backhaul.replica import outbox, parked
from backhaul.work import ledger
from workers.cli.here import Here, opened
from workers.cli.options import AsJson, Home
from workers.cli.output import ago, make_table, say_json, say_table

Ops = Annotated[list[str] | None, typer.Argument(metavar="[OP]...", help="As `parked list` names them.")]
All = Annotated[bool, typer.Option("--all", help="Every parked change.")]


def add_to(program: typer.Typer) -> None:
    group = typer.Typer(help="Changes that the server refused for good, each with its reason.", no_args_is_help=True)
    group.command("list")(list_)
    for command in (retry, discard, export):
        group.command()(command)
    program.add_typer(group, name="parked")


def list_(*, home: Home = None, as_json: AsJson = False) -> None:
    """The parked changes and why they are parked."""
    with opened(home) as here:
        rows = _rows(here)
        if as_json:
            return say_json({"parked": rows})
        table = make_table("op", "table", "key", "change", "captured", "reason")
        for row in rows:
            key = msgspec.json.encode(row["key"]).decode()
            reason = f"{row['reason']}: {row['detail']}"
            table.add_row(row["op"], row["table"], key, row["kind"], ago(row["captured_at"], here.now), reason)
        return say_table(table) if rows else print("nothing is parked")


def retry(ops: Ops = None, *, home: Home = None, all_: All = False, as_json: AsJson = False) -> None:
    """Send parked changes again, as new ones: after what was wrong has been put right."""
    chosen = _chosen(ops, all_)
    with opened(home) as here:
        number = parked.retry(here.database, chosen, now=here.now)
        with here.database.writing() as connection:
            woken = ledger.wake(connection, "push", here.now, force=True)
        if woken is not None:
            here.bell.ring(woken.ring)
    _say(number, "go out again with the next push", "retried", as_json)


def discard(ops: Ops = None, *, home: Home = None, all_: All = False, as_json: AsJson = False) -> None:
    """Give parked changes up: their records become what the server has."""
    chosen = _chosen(ops, all_)
    with opened(home) as here:
        number = parked.discard(here.database, here.remote, chosen)
    _say(number, "given up; their records are as the server has them", "discarded", as_json)


def export(
    *,
    home: Home = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Default: standard output.")] = None,
    as_json: AsJson = False,  # noqa: ARG001 - it is JSON anyway
) -> None:
    """Everything about every parked change, its fields too, as JSON."""
    with opened(home) as here:
        rows = _rows(here)
    if out is None:
        return say_json(rows)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n")
    return print(f"{len(rows)} parked changes are in {out}")


def _rows(here: Here) -> list[dict[str, Any]]:
    with here.database.reading() as connection:
        return [parked.exported(row) for row in outbox.parked(connection)]


def _chosen(ops: list[str] | None, all_: bool) -> list[str]:
    """None named means every one, further down; here that must be said."""
    if bool(ops) == all_:
        raise Misused("name the changes, or say --all", hint="backhaul parked list names them")
    return ops or []


def _say(number: int, became: str, word: str, as_json: bool) -> None:
    if as_json:
        say_json({word: number})
    else:
        print(f"{number} {'change' if number == 1 else 'changes'}: {became}")
