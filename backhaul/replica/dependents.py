"""What depends on a parked change: later changes of the same record, its group, and records that refer to one which
the parked change was to create. They would be refused, or worse: land on somebody else's record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection

from backhaul.replica.capture import quoted
from backhaul.replica.tables import Tracked
from backhaul.wire import Reference, Table

SAME_RECORD = """
    SELECT later.id, refused.op_id
    FROM backhaul_outbox AS refused
    JOIN backhaul_outbox AS later ON later.table_name = refused.table_name AND later.key = refused.key
    WHERE refused.state = 'parked' AND later.state = 'pending' AND later.id > refused.id AND later.id BETWEEN ? AND ?
"""
SAME_GROUP = """
    SELECT other.id, refused.op_id
    FROM backhaul_outbox AS refused
    JOIN backhaul_outbox AS other ON other.group_id = refused.group_id
    WHERE refused.state = 'parked' AND other.state = 'pending' AND other.id BETWEEN ? AND ?
"""


def find(connection: Connection, tracked: Sequence[Tracked], *, first: int, last: int) -> dict[int, str]:
    """The pending changes between two outbox ids that depend directly on a parked one: id -> the parked one's op id."""
    found: dict[int, str] = {}
    for statement, values in _statements(tracked):
        for dependent, cause in connection.exec_driver_sql(statement, (*values, first, last)):
            found.setdefault(dependent, cause)
    return found


def _statements(tracked: Sequence[Tracked]) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield SAME_RECORD, ()
    yield SAME_GROUP, ()
    tables = {one.table.name: one.table for one in tracked}
    for child in tables.values():
        for reference in child.references:
            parent = tables.get(reference.table)
            if parent is not None and set(reference.target) <= set(parent.key):
                yield _refers_to(parent, child, reference), (child.name, parent.name)


def _refers_to(parent: Table, child: Table, reference: Reference) -> str:
    """Children whose foreign key names a record that a parked insert was to create."""
    matches = " AND ".join(
        f"{_said(child, column)} = json_extract(refused.key, '$[{parent.key.index(target)}]')"
        for column, target in zip(reference.columns, reference.target, strict=True)
    )
    return f"""
        SELECT child.id, refused.op_id
        FROM backhaul_outbox AS refused
        JOIN backhaul_outbox AS child ON child.table_name = ? AND child.state = 'pending'
        WHERE refused.state = 'parked' AND refused.table_name = ? AND refused.kind = 'insert' AND {matches}
          AND child.id BETWEEN ? AND ?
    """  # noqa: S608 - generated from the catalogue's own names, quoted


def _said(child: Table, column: str) -> str:
    """SQL for what a change says of a column: in its key, or among its fields."""
    if column in child.key:
        return f"json_extract(child.key, '$[{child.key.index(column)}]')"
    path = "$." + quoted(column).replace("'", "''")
    return f"json_extract(child.fields, '{path}')"
