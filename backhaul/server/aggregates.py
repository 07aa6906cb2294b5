"""When each aggregate was last changed, and by whom: the only file that writes `server_aggregate`.

Two versions of each are kept: of the last change, and of the last one by anybody but its writer. So it is known for
every replica when another one last changed the aggregate, without a history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from backhaul.merge import Change, Lineage
from backhaul.merge.aggregate import Aggregates, Place
from backhaul.server.statements import write_rows
from backhaul.statements import text
from backhaul.wire import Table, encode


class Mark(NamedTuple):
    """version, writer: of the last change. others: version of the last one by another writer than that."""

    version: int
    writer: str
    others: int

    def by_another(self, change: Change) -> int:
        """The version at which another replica than the change's last changed the aggregate; 0 for never."""
        return self.others if change.is_by(self.writer, self.version) else self.version


def contradiction(tables: Mapping[str, Table]) -> str:
    """Why these aggregates cannot be kept together; empty when they can."""
    kept = Aggregates(tables).tables
    for table in tables.values():
        root = tables.get(table.aggregate)
        if root is not None and table.name not in kept:
            return f"{table.name} has no reference to the whole key of {root.name}, its aggregate"
        if root is not None and root.aggregate:
            return f"{table.name} is part of {root.name}, which is part of {root.aggregate} itself"
    return ""


def find(connection: Connection, scope: str, roots: Iterable[Place]) -> dict[Place, Mark]:
    """Those of the aggregates that were changed since they are declared."""
    places = list(roots)
    if not places:
        return {}
    rows = _rows_postgresql if connection.dialect.name == "postgresql" else _rows_sqlite
    return {
        (row.table_name, row.key): Mark(row.version, row.writer, row.others) for row in rows(connection, scope, places)
    }


def keep(
    connection: Connection,
    scope: str,
    changed: Mapping[Place, int],
    marks: Mapping[Place, Mark],
    writer: str,
    lineage: Lineage,
) -> None:
    """changed: root -> version. marks: as they were. What the writer's former selves wrote, and it knows of, is its
    own: it does not push what others wrote out of the mark."""
    statement = """
        INSERT INTO server_aggregate (scope, table_name, key, version, writer, others)
        ROWS
        ON CONFLICT (scope, table_name, key) DO UPDATE
        SET version = excluded.version, writer = excluded.writer, others = excluded.others
    """
    rows = []
    for root, version in changed.items():
        mark, others = marks.get(root), 0
        if mark is not None:
            own = mark.writer == writer or lineage.wrote(mark.writer, mark.version)
            others = mark.others if own else mark.version
        rows.append((scope, *root, version, writer, others))
    write_rows(connection, statement, "text text text bigint text bigint", rows)


def retable(connection: Connection, scope: str, old: str, new: str) -> None:
    """The roots' table has another name. There are no records under both names, so no root
    is known under both, but one that was forgotten."""
    taken = """
        DELETE FROM server_aggregate WHERE scope = :scope AND table_name = :new
          AND key IN (SELECT key FROM server_aggregate WHERE scope = :scope AND table_name = :old)
    """
    renamed = "UPDATE server_aggregate SET table_name = :new WHERE scope = :scope AND table_name = :old"
    for statement in (taken, renamed):
        connection.execute(text(statement), {"scope": scope, "old": old, "new": new})


def _rows_sqlite(connection: Connection, scope: str, roots: list[Place]) -> Iterable[Row[Any]]:
    statement = """
        SELECT table_name, aggregate.key, version, writer, others
        FROM json_each(:roots) AS root
        CROSS JOIN server_aggregate AS aggregate
          ON scope = :scope
         AND table_name = json_extract(root.value, '$[0]')
         AND aggregate.key = json_extract(root.value, '$[1]')
    """
    return connection.execute(text(statement), {"scope": scope, "roots": encode(roots).decode()})


def _rows_postgresql(connection: Connection, scope: str, roots: list[Place]) -> Iterable[Row[Any]]:
    statement = """
        SELECT table_name, key, version, writer, others
        FROM unnest(CAST(:tables AS text[]), CAST(:keys AS text[])) AS root (in_table, by_key)
        CROSS JOIN LATERAL (
            SELECT * FROM server_aggregate WHERE scope = :scope AND table_name = in_table AND key = by_key OFFSET 0
        ) AS aggregate
    """  # as records.py has it: root by root
    values = {"scope": scope, "tables": [root[0] for root in roots], "keys": [root[1] for root in roots]}
    return connection.execute(text(statement), values)
