"""Ledger of backhaul_aside: records of the server that the app's own schema refuses, each with the reason.

One such record stops nothing else: the page it came in is applied without it, and it is fetched and tried again with
later pulls, because what it needs may have come by then.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, text

from backhaul.statements import members
from backhaul.wire import Record, canonical_key

HELD = "the server has deleted it, and a change of it waits here"


def keep(connection: Connection, table: str, key: str, *, reason: str, now: int) -> None:
    """Set the record aside, or say again why it still is. key: canonical JSON."""
    _keep(connection, [{"table": table, "key": key, "reason": reason[:500], "now": now}])


def keep_all(connection: Connection, refused: Sequence[tuple[Record, str]], *, now: int) -> None:
    """The same of many, each with its reason."""
    rows = [
        {"table": record.table, "key": canonical_key(record.key), "reason": reason[:500], "now": now}
        for record, reason in refused
    ]
    if rows:
        _keep(connection, rows)


def _keep(connection: Connection, rows: list[dict[str, object]]) -> None:
    statement = """
        INSERT INTO backhaul_aside (table_name, key, reason, since, tried_at)
        VALUES (:table, :key, :reason, :now, :now)
        ON CONFLICT (table_name, key) DO UPDATE SET reason = excluded.reason, tried_at = excluded.tried_at
    """
    connection.execute(text(statement), rows)


def longest_untried(connection: Connection, limit: int) -> list[tuple[str, str]]:
    """Table and key of the records whose turn it is."""
    statement = "SELECT table_name, key FROM backhaul_aside ORDER BY tried_at, table_name, key LIMIT :limit"
    return [(row.table_name, row.key) for row in connection.execute(text(statement), {"limit": limit})]


def of_tables(
    connection: Connection, names: Sequence[str], *, after: tuple[str, str], limit: int
) -> list[tuple[str, str]]:
    """Table and key of the records of these tables, in this order."""
    statement = f"""
        SELECT table_name, key FROM backhaul_aside
        WHERE table_name IN ({members(connection, "names")}) AND (table_name, key) > (:table, :key)
        ORDER BY table_name, key LIMIT :limit
    """  # noqa: S608 - the parts are constants
    values = {"names": json.dumps(list(names)), "table": after[0], "key": after[1], "limit": limit}
    return [(row.table_name, row.key) for row in connection.execute(text(statement), values)]


def listed(connection: Connection, limit: int = 1_000) -> list[RowMapping]:
    """For people, the oldest first."""
    statement = """
        SELECT table_name AS "table", key, reason, since, tried_at FROM backhaul_aside
        ORDER BY since, table_name, key LIMIT :limit
    """
    return list(connection.execute(text(statement), {"limit": limit}).mappings())


def retable(connection: Connection, old: str, new: str) -> None:
    """The table has another name."""
    statement = "UPDATE backhaul_aside SET table_name = :new WHERE table_name = :old"
    connection.execute(text(statement), {"old": old, "new": new})


def forget(connection: Connection, places: Sequence[tuple[str, str]]) -> None:
    """They fit by now, or the server has them no more."""
    statement = "DELETE FROM backhaul_aside WHERE table_name = :table AND key = :key"
    if places:
        connection.execute(text(statement), [{"table": table, "key": key} for table, key in places])


def of_record(connection: Connection, table: str, key: str) -> RowMapping | None:
    statement = "SELECT reason, since, tried_at FROM backhaul_aside WHERE table_name = :table AND key = :key"
    return connection.execute(text(statement), {"table": table, "key": key}).mappings().first()


def count(connection: Connection) -> int:
    return int(connection.execute(text("SELECT count(*) FROM backhaul_aside")).scalar_one())
