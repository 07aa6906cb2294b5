"""Tables that get another name in a scope: all that is kept of them goes along.

Whose records it would mix with others' is refused: a name that was a table's stays its own, and two tables that both
hold something never become one.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection

from backhaul.errors import Refused
from backhaul.server import aggregates, blocks, names, records
from backhaul.server.problems import refusal
from backhaul.wire import Table


def under_newest(connection: Connection, scope: str, known: dict[str, Table], said: Sequence[Table]) -> list[Table]:
    """What is said of tables, under their newest names. known: the scope's tables by name, where those that get another
    one are renamed in place, with all that refers to them. Raises Refused `schema-conflict`."""
    for table in said:
        if table.formerly:
            _rename(connection, scope, known, table)
    newest = {old: table.name for table in known.values() for old in table.formerly}
    newest |= {old: table.name for table in said if table.name not in newest for old in table.formerly}
    meant: dict[str, str] = {}
    for table in said:
        name = newest.get(table.name, table.name)
        if meant.setdefault(name, table.name) != table.name:
            raise _conflict(f"{name} was called {table.name} before, and no other table can be called that")
    return [names.tables_under(table, newest) for table in said]


def _rename(connection: Connection, scope: str, known: dict[str, Table], said: Table) -> None:
    """Give the table that is meant the name that is said, unless it has a newer one."""
    of_old = {old: table.name for table in known.values() for old in table.formerly}
    meant = {of_old.get(name, name) for name in (*said.formerly, said.name)} & known.keys()
    for name in sorted(meant - {said.name}):
        if name in said.formerly:
            _give(connection, scope, known, name, said.name)
        elif said.name not in known[name].formerly:
            raise _conflict(f"{said.formerly[0]} was renamed to {name} here, not to {said.name}")


def _give(connection: Connection, scope: str, known: dict[str, Table], old: str, new: str) -> None:
    before = known.pop(old)
    there = known.get(new)
    formerly = [*before.formerly, old]
    if there is not None and _holds(connection, scope, new):
        if _holds(connection, scope, old):
            raise _conflict(f"{old} and {new} are two tables here, and both have records")
        before = there
    known[new] = msgspec.structs.replace(before, name=new, formerly=[*(there.formerly if there else []), *formerly])
    for name, table in known.items():
        known[name] = names.tables_under(table, {old: new})
    records.retable(connection, scope, old, new)
    aggregates.retable(connection, scope, old, new)
    blocks.retable(connection, scope, old, new)


def _holds(connection: Connection, scope: str, name: str) -> bool:
    return records.any_of(connection, scope, name) or blocks.any_of(connection, scope, name)


def _conflict(detail: str) -> Refused:
    return refusal("schema-conflict", detail)
