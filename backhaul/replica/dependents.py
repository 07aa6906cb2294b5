"""What depends on a parked change, on a conflict, or on one that is held: later changes of the same record, its group,
and records that refer to one which it was to create. They would be refused, or worse: land on somebody else's
record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from sqlalchemy import Connection

from backhaul.replica.tables import Tracked
from backhaul.statements import member, on_postgresql, run
from backhaul.wire import Reference, Table

# Each joins against what is distinct among the parked, so that SQLite looks a change up instead of comparing it with
# all: a parked transaction may hold thousands.
SAME_RECORD = """
    SELECT later.id, refused.op_id
    FROM (SELECT table_name, key, min(id) AS id, {op_id} FROM backhaul_outbox
          WHERE state = '{of}' GROUP BY table_name, key) AS refused
    JOIN backhaul_outbox AS later ON later.table_name = refused.table_name AND later.key = refused.key
    WHERE later.state = ? AND later.id > refused.id AND later.id BETWEEN ? AND ?
"""
SAME_GROUP = """
    SELECT other.id, refused.op_id
    FROM (SELECT group_id, min(op_id) AS op_id FROM backhaul_outbox
          WHERE state = '{of}' AND group_id IS NOT NULL GROUP BY group_id) AS refused
    JOIN backhaul_outbox AS other ON other.group_id = refused.group_id
    WHERE other.state = ? AND other.id BETWEEN ? AND ?
"""


def find(
    connection: Connection,
    tracked: Sequence[Tracked],
    *,
    of: Literal["parked", "conflict", "held"] = "parked",
    state: str = "pending",
    first: int = 0,
    last: int = 2**63 - 1,
) -> dict[int, str]:
    """The changes in this state, between two outbox ids, that depend directly on one in the state `of`: id -> the op id
    of that one."""
    found: dict[int, str] = {}
    for statement, values in _statements(connection, tracked, of):
        rows: Iterator[Any] = iter(run(connection, statement, (*values, state, first, last)))
        for row in rows:
            found.setdefault(row[0], row[1])
    return found


def _statements(connection: Connection, tracked: Sequence[Tracked], of: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    first = "(array_agg(op_id ORDER BY id))[1] AS op_id" if on_postgresql(connection) else "op_id"
    yield SAME_RECORD.format(op_id=first, of=of), ()
    yield SAME_GROUP.format(of=of), ()
    tables = {one.table.name: one.table for one in tracked}
    for child in tables.values():
        for reference in child.references:
            parent = tables.get(reference.table)
            if parent is not None and set(reference.target) <= set(parent.key):
                yield _refers_to(connection, parent, child, reference, of), (parent.name, child.name)


def _refers_to(connection: Connection, parent: Table, child: Table, reference: Reference, of: str) -> str:
    """Children whose foreign key names a record that a parked insert, or a conflict, was to create; or one that is
    held, which may be of the backfill."""
    creates = "(kind = 'insert' OR kind = 'backfill')" if of == "held" else "kind = 'insert'"
    parts = [member(connection, "key", parent.key.index(target)) for target in reference.target]
    named = ", ".join(f"{part} AS part{number}" for number, part in enumerate(parts))
    matches = " AND ".join(
        f"refused.part{number} = {_said(connection, child, column)}" for number, column in enumerate(reference.columns)
    )
    return f"""
        SELECT child.id, refused.op_id
        FROM backhaul_outbox AS child
        JOIN (SELECT {named}, min(op_id) AS op_id FROM backhaul_outbox
              WHERE state = '{of}' AND {creates} AND table_name = ?
              GROUP BY {", ".join(parts)}) AS refused
          ON {matches}
        WHERE child.table_name = ? AND child.state = ? AND child.id BETWEEN ? AND ?
    """  # noqa: S608 - generated from the catalogue's own names, quoted


def _said(connection: Connection, child: Table, column: str) -> str:
    """SQL for what a change says of a column: in its key, or among its fields."""
    if column in child.key:
        return member(connection, "child.key", child.key.index(column))
    return member(connection, "child.fields", column)
