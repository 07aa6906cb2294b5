"""What is there: how many changes wait, since when, and what became of those of one record. Nothing here writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, RowMapping

from backhaul.replica import lanes
from backhaul.replica.outbox.claiming import LONGEST_WAIT_MS
from backhaul.statements import as_bytes, text
from backhaul.wire import MOST_RANGES


@dataclass(frozen=True, kw_only=True)
class Counts:
    """pending: what has no outcome yet. held: how many of those wait for a file; they are not what is oldest."""

    pending: int
    held: int
    parked: int
    oldest_pending_at: int | None


PENDING = "id > (SELECT frozen_id FROM backhaul_replica) AND state = 'pending'"


def pending(connection: Connection, now: int, lane: int = 0) -> bool:
    """Whether something could be sent now in a lane, were there no other: until what was sent has its outcome, nothing
    new is."""
    return due_again(connection, now, lane) if any_sent(connection, lane) else any_fresh(connection)


def any_fresh(connection: Connection) -> bool:
    """Whether something waits that was not sent yet."""
    statement = f"SELECT EXISTS (SELECT 1 FROM backhaul_outbox WHERE {PENDING})"  # noqa: S608 - a constant
    return bool(connection.execute(text(statement)).scalar_one())


def any_sent(connection: Connection, lane: int = 0) -> bool:
    """Whether something was sent in the lane, and has no outcome yet."""
    statement = f"SELECT EXISTS (SELECT 1 FROM backhaul_outbox WHERE {lanes.SENT_IN})"  # noqa: S608 - a constant
    return bool(connection.execute(text(statement), lanes.sent_in(lane)).scalar_one())


def due_again(connection: Connection, now: int, lane: int = 0) -> bool:
    """Whether something that was sent in the lane goes again now."""
    statement = f"""
        SELECT EXISTS (SELECT 1 FROM backhaul_outbox WHERE {lanes.SENT_IN}
                       AND (next_at <= :now OR next_at > :longest) AND (lease_until <= :now OR lease_until > :longest))
    """  # noqa: S608 - a constant
    values = lanes.sent_in(lane) | {"now": now, "longest": now + LONGEST_WAIT_MS}
    return bool(connection.execute(text(statement), values).scalar_one())


def waiting(connection: Connection) -> int:
    """How many changes have no outcome yet."""
    statement = f"""
        SELECT (SELECT count(*) FROM backhaul_outbox WHERE {PENDING})
             + (SELECT count(*) FROM backhaul_outbox WHERE state = 'sent')
             + (SELECT count(*) FROM backhaul_outbox WHERE state = 'held')
    """  # noqa: S608 - the same
    return int(connection.execute(text(statement)).scalar_one())


def written(connection: Connection) -> list[tuple[int, int]]:
    """The versions of what this database has written, as ranges: all up to where it has pulled (with others' among
    them), and what was accepted since. The newest, where they are too many to tell."""
    statement = """
        SELECT min(version), max(version) FROM (
            SELECT version, version - row_number() OVER (ORDER BY version) AS island
            FROM (SELECT DISTINCT version FROM backhaul_outbox, backhaul_replica
                  WHERE state = 'acked' AND version > position) AS accepted
        ) AS islands
        GROUP BY island ORDER BY island DESC LIMIT :most
    """
    position = connection.execute(text("SELECT position FROM backhaul_replica")).scalar_one()
    accepted = connection.execute(text(statement), {"most": MOST_RANGES - 1})
    return [(0, position), *((first, last) for first, last in accepted)]


def any_parked(connection: Connection) -> bool:
    statement = "SELECT EXISTS (SELECT 1 FROM backhaul_outbox WHERE state = 'parked')"
    return bool(connection.execute(text(statement)).scalar_one())


def any_set_aside(connection: Connection) -> bool:
    """Whether something is parked, a conflict, or held."""
    statement = """
        SELECT EXISTS (SELECT 1 FROM backhaul_outbox WHERE state = 'parked' OR state = 'conflict' OR state = 'held')
    """
    return bool(connection.execute(text(statement)).scalar_one())


def counts(connection: Connection) -> Counts:
    statement = f"""
        SELECT (SELECT count(*) FROM backhaul_outbox WHERE state = 'parked') AS parked,
               (SELECT count(*) FROM backhaul_outbox WHERE state = 'held') AS held,
               (SELECT min(captured_at) FROM (
                   SELECT captured_at FROM (
                       SELECT captured_at FROM backhaul_outbox WHERE {PENDING} ORDER BY id LIMIT 1) AS unsent
                   UNION ALL
                   SELECT captured_at FROM (
                       SELECT captured_at FROM backhaul_outbox WHERE state = 'sent' ORDER BY send_seq LIMIT 1) AS sent
               ) AS first) AS oldest_pending_at
    """  # noqa: S608 - the same
    return Counts(pending=waiting(connection), **connection.execute(text(statement)).one()._mapping)


def of_record(connection: Connection, table: str, key: str) -> list[RowMapping]:
    """Every change of one record that is still here, oldest first. key: canonical JSON."""
    statement = """
        SELECT id, op_id, kind, state, captured_at, attempts, next_at, lease_until, version, reason, detail, settled_at,
               conflict_id
        FROM backhaul_outbox WHERE table_name = :table AND key = :key ORDER BY id
    """
    return list(connection.execute(text(statement), {"table": table, "key": key}).mappings())


def parked(connection: Connection) -> list[Mapping[str, Any]]:
    """Every parked change, oldest first. key, fields: as text, with a mark for each byte that is no UTF-8."""
    statement = f"""
        SELECT id, op_id, group_id, table_name, {as_bytes(connection, "key")} AS key, kind,
               {as_bytes(connection, "fields")} AS fields, captured_at, reason, detail, settled_at
        FROM backhaul_outbox WHERE state = 'parked' ORDER BY id
    """  # noqa: S608 - the parts are constants
    rows = connection.execute(text(statement)).mappings()
    return [{**row, "key": _legible(row["key"]), "fields": _legible(row["fields"])} for row in rows]


def parked_as_they_are(connection: Connection) -> list[Row[Any]]:
    """The same, with key and fields as bytes."""
    statement = f"""
        SELECT id, table_name, {as_bytes(connection, "key")} AS key, kind, {as_bytes(connection, "fields")} AS fields
        FROM backhaul_outbox WHERE state = 'parked' ORDER BY id
    """  # noqa: S608 - the parts are constants
    return list(connection.execute(text(statement)))


def _legible(said: bytes | None) -> str | None:
    return None if said is None else said.decode(errors="replace")
