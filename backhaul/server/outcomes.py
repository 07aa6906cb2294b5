"""What became of each op, and how far each replica's numbers are known: the memory that makes a resend harmless.

The only file that writes `server_applied`, and `high_water` and `settled` in `server_replica`. The high-water mark is
kept for ever, the outcomes for 30 days and until the replica knows them: who goes on behind a number has the outcomes
of all before it. So only a database that was copied, or put back, sends a number again whose outcome is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, text

from backhaul.errors import DatabaseBusy
from backhaul.server.problems import refusal
from backhaul.server.statements import write_rows
from backhaul.wire import Op, Problem, Result, Status, encode

KEPT_MS = 30 * 86_400_000


def high_water(connection: Connection, replica: str) -> int:
    """Raises Refused `replica-revoked`: the token was checked before the transaction began."""
    statement = "SELECT high_water FROM server_replica WHERE replica = :replica AND revoked_at IS NULL"
    found = connection.execute(text(statement), {"replica": replica}).scalar_one_or_none()
    if found is None:
        raise refusal("replica-revoked", "this replica was revoked")
    return int(found)


def replay(connection: Connection, replica: str, ops: Sequence[Op]) -> dict[int, Result]:
    """The results, by number, of ops that had one before. Raises Refused `replica-forked`."""
    if not ops:
        return {}
    known = {row.send_seq: row for row in _find(connection, replica, [op.seq for op in ops])}
    return {op.seq: _replayed(op, known.get(op.seq)) for op in ops}


def recognise(connection: Connection, lineage: Sequence[str], ops: Sequence[Op]) -> dict[int, Result]:
    """The results, by number, of ops that were sent before under another number or identity."""
    if not ops:
        return {}
    known = {row.op_id: row for row in _find_ids(connection, lineage, [op.op for op in ops])}
    return {op.seq: _replayed(op, known[op.op]) for op in ops if op.op in known}


def keep(connection: Connection, replica: str, ops: Sequence[Op], results: Sequence[Result], now: int) -> None:
    statement = """
        INSERT INTO server_applied (replica, send_seq, op_id, status, version, problem, applied_at)
        VALUES (?, ?, ?, ?, ?, ?, ?)
    """
    rows = [
        (replica, op.seq, op.op, _lasting(result.status), result.version, _text(result.problem), now)
        for op, result in zip(ops, results, strict=True)
    ]
    write_rows(connection, statement, rows)


def _lasting(status: Status) -> Status:
    """An op that was taken before, under another number, was taken."""
    return "applied" if status == "duplicate" else status


def advance(connection: Connection, replica: str, *, since: int, to: int, first: int, now: int) -> None:
    """first: the first number of the push; the replica is done with all before it."""
    statement = """
        UPDATE server_replica
        SET high_water = :to, seen_at = :now, settled = CASE WHEN settled < :first - 1 THEN :first - 1 ELSE settled END
        WHERE replica = :replica AND high_water = :since
    """
    values = {"replica": replica, "since": since, "to": to, "first": first, "now": now}
    moved = connection.execute(text(statement), values)
    if moved.rowcount != 1:
        raise DatabaseBusy("two pushes of one replica at once", hint="try again")


def purge(connection: Connection, now: int) -> int:
    """Forget the accepted ops that are older than 30 days, and known to their replica; returns how many.

    A refusal is never forgotten: there are few, and what depends on them may come late.
    """
    statement = """
        DELETE FROM server_applied
        WHERE applied_at < :before AND status = 'applied' AND send_seq <= (
            SELECT settled FROM server_replica WHERE server_replica.replica = server_applied.replica)
    """
    return connection.execute(text(statement), {"before": now - KEPT_MS}).rowcount


def _find(connection: Connection, replica: str, numbers: list[int]) -> list[Row[Any]]:
    sqlite = """
        SELECT send_seq, op_id, status, version, problem
        FROM server_applied
        WHERE replica = :replica AND send_seq IN (SELECT value FROM json_each(:numbers))
    """
    postgresql = """
        SELECT send_seq, op_id, status, version, problem
        FROM server_applied
        WHERE replica = :replica AND send_seq = ANY(CAST(:numbers AS bigint[]))
    """
    if connection.dialect.name == "postgresql":
        return list(connection.execute(text(postgresql), {"replica": replica, "numbers": numbers}))
    return list(connection.execute(text(sqlite), {"replica": replica, "numbers": encode(numbers).decode()}))


def _find_ids(connection: Connection, lineage: Sequence[str], ids: list[str]) -> list[Row[Any]]:
    """By a look at all that is remembered of these replicas: it is seldom asked, and an index would cost every push."""
    sqlite = """
        SELECT op_id, status, version, problem
        FROM server_applied
        WHERE replica IN (SELECT value FROM json_each(:lineage)) AND op_id IN (SELECT value FROM json_each(:ids))
    """
    postgresql = """
        SELECT op_id, status, version, problem
        FROM server_applied
        WHERE replica = ANY(CAST(:lineage AS text[])) AND op_id = ANY(CAST(:ids AS text[]))
    """
    if connection.dialect.name == "postgresql":
        return list(connection.execute(text(postgresql), {"lineage": list(lineage), "ids": ids}))
    values = {"lineage": encode(list(lineage)).decode(), "ids": encode(ids).decode()}
    return list(connection.execute(text(sqlite), values))


def _text(problem: Problem | None) -> str | None:
    return encode(problem).decode() if problem else None


def _replayed(op: Op, known: Row[Any] | None) -> Result:
    if known is None:
        raise refusal("replica-forked", f"number {op.seq} was given to an op, so long ago that it is forgotten")
    if known.op_id != op.op:
        raise refusal("replica-forked", f"number {op.seq} was given to another op before")
    if known.status == "applied":
        return Result(op=op.op, status="duplicate", version=known.version)
    problem = msgspec.json.decode(known.problem, type=Problem) if known.problem else None
    return Result(op=op.op, status=known.status, version=known.version, problem=problem)
