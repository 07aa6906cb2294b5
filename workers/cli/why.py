"""backhaul why: one line about a record or a piece of work."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from backhaul.errors import Misused, TableUnknown, Unknown
from backhaul.replica import tables
from backhaul.replica.why import why_record
from backhaul.wire import Table, Tagged, Value
from workers.cli.asking import why_work
from workers.cli.here import Here, opened
from workers.cli.options import AsJson, Home
from workers.cli.output import say_json

PENDING = ("pending", "sent")


def add_to(program: typer.Typer) -> None:
    program.command()(why)


def why(
    what: Annotated[str, typer.Argument(metavar="TABLE|WORK-ID", help="A table, with KEY; or a piece of work.")],
    key: Annotated[str | None, typer.Argument(help="The primary key; a composite one as JSON: '[1, 2]'.")] = None,
    *,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Say in one line why a record or a piece of work is not done yet: what it waits for, its next try, its error."""
    with opened(home) as here:
        line = why_work(here, what) if key is None else _why_record(here, what, key)
    if as_json:
        say_json({"of": what, "key": key, "state": line.partition(":")[0], "why": line})
    else:
        print(line)


def _why_record(here: Here, table_name: str, written: str) -> str:
    with here.database.reading() as connection:
        table = _table([one.table for one in tables.all_tracked(connection)], table_name)
        line = why_record(connection, table_name, _key(table, written), now=here.now)
    if not line.startswith(PENDING):
        return line
    return f"{line}; the push: {why_work(here, 'push')}"


def _table(tracked: list[Table], name: str) -> Table:
    for table in tracked:
        if table.name == name:
            return table
    raise TableUnknown(f"table {name!r} is not synced", hint=f"synced: {', '.join(one.name for one in tracked)}")


def _key(table: Table, written: str) -> list[Value]:
    if len(table.key) > 1:
        return _composite(table, written)
    declared = next(column.type.upper() for column in table.columns if column.name == table.key[0])
    if "INT" in declared:
        return [_integer(table, written)]
    return [Tagged(hex=written.lower())] if "BLOB" in declared else [written]


def _composite(table: Table, written: str) -> list[Value]:
    try:
        parts = msgspec.json.decode(written, type=list[Value])
    except msgspec.MsgspecError:
        parts = []
    if len(parts) != len(table.key):
        columns = ", ".join(table.key)
        raise Misused(f"the key of {table.name} is ({columns})", hint=f"as JSON: backhaul why {table.name} '[1, 2]'")
    return parts


def _integer(table: Table, written: str) -> int:
    try:
        return int(written)
    except ValueError:
        raise Unknown(f"the key of {table.name} is a whole number, not {written!r}") from None
