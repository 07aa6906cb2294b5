"""What a person does about parked changes: send them again, or give them up; the list is the outbox's.

Giving up a change means that the server's state of the record comes back. The server is asked before the transaction;
a later change of the same record that waits is parked with it (it depends on it), so nothing of ours can be laid over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping

from backhaul.database import Database
from backhaul.errors import Unknown
from backhaul.remotes.base import Remote
from backhaul.replica import apply, outbox, tables
from backhaul.wire import Record, Table, Tagged, Value, canonical_key


def retry(database: Database, op_ids: Sequence[str], *, now: int) -> int:
    """Send these parked changes (or, with none named, all) again, as new ops. Raises Unknown."""
    with database.writing() as connection:
        return outbox.requeue(connection, [row["id"] for row in _chosen(connection, op_ids)], now=now)


def discard(database: Database, remote: Remote, op_ids: Sequence[str]) -> int:
    """Give these parked changes up; their records become what the server has. Raises Unknown, TryLater, Refused."""
    with database.reading() as connection:
        chosen = _chosen(connection, op_ids)
    keys = _records(chosen)
    there = {(one.table, canonical_key(one.key)): one for one in remote.records(keys)} if keys else {}
    with database.writing() as connection:
        given_up = outbox.discard(connection, [row["id"] for row in chosen])
        for table in (one.table for one in tables.checked(connection)):
            ours = [key for name, key in keys if name == table.name and not _still_held(connection, name, key)]
            _restore(connection, table, ours, there)
        return given_up


def _chosen(connection: Connection, op_ids: Sequence[str]) -> list[RowMapping]:
    rows = outbox.parked(connection)
    if not op_ids:
        return rows
    known = {row["op_id"]: row for row in rows}
    for op_id in op_ids:
        if op_id not in known:
            raise Unknown(f"no parked change {op_id!r}", hint="list them: backhaul parked list")
    groups = {known[op_id]["group_id"] for op_id in op_ids} - {None}  # a transaction goes, or is given up, as a whole
    return [row for row in rows if row["op_id"] in op_ids or row["group_id"] in groups]


def _records(chosen: Sequence[RowMapping]) -> list[tuple[str, list[Any]]]:
    distinct = dict.fromkeys((row["table_name"], row["key"]) for row in chosen)
    return [(table, msgspec.json.decode(key, type=list[Value])) for table, key in distinct]


def _still_held(connection: Connection, table: str, key: list[Any]) -> bool:
    """Another change of this record is on its way or parked: what it says stays on top."""
    return any(row["state"] != "acked" for row in outbox.of_record(connection, table, canonical_key(key)))


def _restore(
    connection: Connection,
    table: Table,
    keys: Sequence[list[Any]],
    there: dict[tuple[str, str], Record],
) -> None:
    found = [there.get((table.name, canonical_key(key))) for key in keys]
    apply.apply_records(connection, [table], [record for record in found if record is not None])
    missing = [key for key, record in zip(keys, found, strict=True) if record is None]
    if missing:
        apply.delete_records(connection, table, missing)


def exported(row: RowMapping) -> dict[str, Any]:
    """A parked change as a person or a program reads it."""
    return {
        "op": row["op_id"],
        "group": row["group_id"],
        "table": row["table_name"],
        "key": _readable(msgspec.json.decode(row["key"])),
        "kind": row["kind"],
        "fields": msgspec.json.decode(row["fields"]) if row["fields"] else None,
        "captured_at": row["captured_at"],
        "reason": row["reason"],
        "detail": row["detail"],
    }


def _readable(key: list[Any]) -> list[Any]:
    return [part.hex if isinstance(part, Tagged) else part for part in key]
