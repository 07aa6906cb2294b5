"""Ledger of backhaul_stage: pages of a round that are fetched and not applied yet, and, in a recovery, what came.

A round of several pages is applied in one transaction at its end, so that a reader sees it all or not at all. Its pages
wait here, not in memory. A record that comes twice in a round comes with all that its first coming said, and more: the
later one takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, text

from backhaul.wire import Record, canonical_key, encode

CHUNK = 2_000  # records held at once


def keep(connection: Connection, records: Sequence[Record]) -> None:
    """What came, to be applied later."""
    _put(connection, records, whole=True)


def note(connection: Connection, records: Sequence[Record]) -> None:
    """That they came; they are applied already."""
    _put(connection, records, whole=False)


def count(connection: Connection) -> int:
    """How many records wait to be applied."""
    return int(connection.execute(text("SELECT count(*) FROM backhaul_stage WHERE record IS NOT NULL")).scalar_one())


def tables(connection: Connection) -> frozenset[str]:
    """Of which records wait to be applied."""
    statement = "SELECT DISTINCT table_name FROM backhaul_stage WHERE record IS NOT NULL"
    return frozenset(connection.execute(text(statement)).scalars())


def waiting(connection: Connection) -> Iterator[list[Record]]:
    """What waits to be applied, oldest version first, a chunk at a time."""
    statement = text(
        "SELECT table_name, record FROM backhaul_stage WHERE record IS NOT NULL ORDER BY version, table_name, key"
    )
    rows = connection.execute(statement.execution_options(stream_results=True))
    for chunk in rows.partitions(CHUNK):
        yield [_record(row) for row in chunk]


def applied(connection: Connection) -> None:
    """What waited is applied, in this same transaction: only that it came is remembered."""
    connection.execute(text("UPDATE backhaul_stage SET record = NULL WHERE record IS NOT NULL"))


def rename(connection: Connection, table: str, names: Mapping[str, str]) -> None:
    """The table's columns have other names, in what waits to be applied. names: old -> new."""
    statement = """
        SELECT table_name, key, record FROM backhaul_stage
        WHERE table_name = :table AND key > :after AND record IS NOT NULL ORDER BY key LIMIT :limit
    """
    values = {"table": table, "after": "", "limit": CHUNK}
    while rows := connection.execute(text(statement), values).all():
        records = [_record(row) for row in rows]
        for record in records:
            record.fields = {names.get(name, name): value for name, value in record.fields.items()}
        keep(connection, records)
        values["after"] = rows[-1].key


def retable(connection: Connection, old: str, new: str) -> None:
    """The table has another name."""
    statement = "UPDATE backhaul_stage SET table_name = :new WHERE table_name = :old"
    connection.execute(text(statement), {"old": old, "new": new})


def clear(connection: Connection) -> None:
    connection.execute(text("DELETE FROM backhaul_stage"))


def _record(row: Row[Any]) -> Record:
    """The table's name is the ledger's: it may have been renamed since the record came."""
    return msgspec.structs.replace(msgspec.json.decode(row.record, type=Record), table=row.table_name)


def _put(connection: Connection, records: Sequence[Record], *, whole: bool) -> None:
    statement = """
        INSERT INTO backhaul_stage (table_name, key, version, deleted, record)
        VALUES (:table, :key, :version, :deleted, :record)
        ON CONFLICT (table_name, key) DO UPDATE
        SET version = excluded.version, deleted = excluded.deleted, record = excluded.record
    """
    rows = [
        {
            "table": record.table,
            "key": canonical_key(record.key),
            "version": record.version,
            "deleted": int(record.deleted),
            "record": encode(record).decode() if whole else None,
        }
        for record in records
    ]
    if rows:
        connection.execute(text(statement), rows)
