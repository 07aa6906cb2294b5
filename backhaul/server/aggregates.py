"""When each aggregate was last changed, and by whom: the only file that writes `server_aggregate`.

Two versions of each are kept: of the last change, and of the last one by anybody but its writer. So it is known for
every replica when another one last changed the aggregate, without a history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, text

from backhaul.merge.aggregate import Aggregates, Place
from backhaul.server.statements import write_rows
from backhaul.wire import Table, encode


class Mark(NamedTuple):
    """version, writer: of the last change. others: version of the last one by another writer than that."""

    version: int
    writer: str
    others: int

    def by_another(self, replica: str) -> int:
        """The version at which a replica other than this one last changed the aggregate; 0 for never."""
        return self.others if self.writer == replica else self.version


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


def keep(connection: Connection, scope: str, changed: Mapping[Place, int], writer: str) -> None:
    """changed: root -> version."""
    statement = """
        INSERT INTO server_aggregate (scope, table_name, key, version, writer, others)
        VALUES (?, ?, ?, ?, ?, 0)
        ON CONFLICT (scope, table_name, key) DO UPDATE
        SET others = CASE WHEN server_aggregate.writer = excluded.writer THEN server_aggregate.others
                          ELSE server_aggregate.version END,
            version = excluded.version, writer = excluded.writer
    """
    write_rows(connection, statement, [(scope, *root, version, writer) for root, version in changed.items()])


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
        JOIN server_aggregate ON scope = :scope AND table_name = in_table AND key = by_key
    """
    values = {"scope": scope, "tables": [root[0] for root in roots], "keys": [root[1] for root in roots]}
    return connection.execute(text(statement), values)
