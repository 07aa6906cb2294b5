"""What became of each op, and how far each replica's numbers are known: the memory that makes a resend harmless.

The only file that writes `server_applied` and `server_lane`. The high-water marks, one for each lane that a replica
pushes in, are kept for ever, the outcomes for 30 days and until the replica knows them: who goes on behind a number has
the outcomes of all before it in its lane. So only a database that was copied, or put back, sends a number again whose
outcome is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row

from backhaul.errors import DatabaseBusy
from backhaul.lanes import COUNT_BITS, before_first, lane_of
from backhaul.server.problems import refusal
from backhaul.server.statements import write_rows
from backhaul.statements import members, text
from backhaul.wire import Op, Problem, Result, Status, encode

KEPT_MS = 30 * 86_400_000


def high_water(connection: Connection, replica: str, lane: int = 0) -> int:
    """The last number of a lane that has an outcome, and so has every one before it.

    Raises Refused `replica-revoked`: the token was checked before the transaction began.
    """
    statement = """
        SELECT coalesce(server_lane.high_water, :none)
        FROM server_replica
        LEFT JOIN server_lane ON server_lane.replica = server_replica.replica AND server_lane.lane = :lane
        WHERE server_replica.replica = :replica AND revoked_at IS NULL
    """
    values = {"replica": replica, "lane": lane, "none": before_first(lane)}
    found = connection.execute(text(statement), values).scalar_one_or_none()
    if found is None:
        raise refusal("replica-revoked", "this replica was revoked")
    return int(found)


def counted(connection: Connection, replica: str) -> int:
    """How many numbers have an outcome, over all lanes. Raises Refused `replica-revoked`."""
    statement = """
        SELECT coalesce(sum(high_water - (lane << :bits)), 0) FROM server_lane WHERE replica = :replica
    """
    high_water(connection, replica)
    return int(connection.execute(text(statement), {"replica": replica, "bits": COUNT_BITS}).scalar_one())


def replay(connection: Connection, replica: str, ops: Sequence[Op]) -> dict[int, Result]:
    """The results, by number, of ops that had one before. Raises Refused `replica-forked`."""
    if not ops:
        return {}
    known = {row.send_seq: row for row in _find(connection, replica, [op.seq for op in ops])}
    return {op.seq: _replayed(op, known.get(op.seq)) for op in ops}


def recognise(
    connection: Connection, lineage: Sequence[str], ops: Sequence[Op], *, as_former: bool = False
) -> dict[int, Result]:
    """The results, by number, of ops that were sent before under another number or identity; of one that was said
    anew, the last. as_former: only of those that were known to be such when they came."""
    if not ops:
        return {}
    known = {row.op_id: row for row in _find_ids(connection, lineage, [op.op for op in ops], as_former=as_former)}
    return {op.seq: _replayed(op, known[op.op]) for op in ops if op.op in known}


def keep(connection: Connection, replica: str, ops: Sequence[Op], results: Sequence[Result], now: int) -> None:
    statement = """
        INSERT INTO server_applied (replica, send_seq, op_id, status, version, problem, applied_at, former)
        ROWS
    """
    rows = [
        (
            replica,
            op.seq,
            op.op,
            _lasting(op, result.status),
            result.version,
            problem and _text(problem),
            now,
            int(op.former),
        )
        for op, result in zip(ops, results, strict=True)
        for problem in (result.problem,)
    ]
    write_rows(connection, statement, "text bigint text text bigint text bigint integer", rows)


def _lasting(op: Op, status: Status) -> Status | Literal["void"]:
    """An op that was taken before, under another number, was taken. What only fills the number of one that was given up
    has that one's id, and has taken nothing: a database that is put back, and still holds it, sends it for the first
    time."""
    if op.kind == "void" and status == "applied":
        return "void"
    return "applied" if status == "duplicate" else status


def advance(connection: Connection, replica: str, *, since: int, to: int, first: int, now: int) -> None:
    """The mark of a lane moves. first: the first number of the push; the replica is done with all of the lane before
    it."""
    statement = """
        INSERT INTO server_lane (replica, lane, high_water, settled) VALUES (:replica, :lane, :to, :done)
        ON CONFLICT (replica, lane) DO UPDATE
        SET high_water = excluded.high_water,
            settled = CASE WHEN excluded.settled > server_lane.settled THEN excluded.settled
                           ELSE server_lane.settled END
        WHERE server_lane.high_water = :since
    """
    values = {"replica": replica, "lane": lane_of(to), "since": since, "to": to, "done": first - 1}
    if connection.execute(text(statement), values).rowcount != 1:
        raise DatabaseBusy("two pushes of one lane at once", hint="try again")
    seen = "UPDATE server_replica SET seen_at = :now WHERE replica = :replica"
    connection.execute(text(seen), {"replica": replica, "now": now})


def purge(connection: Connection, now: int) -> int:
    """Forget the accepted ops that are older than 30 days, and known to their replica; returns how many.

    A refusal is never forgotten: there are few, and what depends on them may come late.
    """
    statement = """
        DELETE FROM server_applied
        WHERE applied_at < :before AND (status = 'applied' OR status = 'void') AND send_seq <= (
            SELECT settled FROM server_lane
            WHERE server_lane.replica = server_applied.replica AND lane = send_seq >> :bits)
    """
    _forget_theirs(connection, now)
    return connection.execute(text(statement), {"before": now - KEPT_MS, "bits": COUNT_BITS}).rowcount


def _forget_theirs(connection: Connection, now: int) -> None:
    """What stood there when an op was a conflict is no news any more: who asks again fetches what stands there now."""
    without, there = "json_remove(problem, '$.theirs')", "json_extract(problem, '$.theirs') IS NOT NULL"
    if connection.dialect.name == "postgresql":
        without = "CAST(CAST(problem AS jsonb) - 'theirs' AS text)"
        there = "CAST(problem AS jsonb) ->> 'theirs' IS NOT NULL"
    statement = f"""
        UPDATE server_applied SET problem = {without}
        WHERE applied_at < :before AND status = 'conflict' AND {there} AND send_seq <= (
            SELECT settled FROM server_lane
            WHERE server_lane.replica = server_applied.replica AND lane = send_seq >> :bits)
    """  # noqa: S608 - constants
    connection.execute(text(statement), {"before": now - KEPT_MS, "bits": COUNT_BITS})


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


def _find_ids(connection: Connection, lineage: Sequence[str], ids: list[str], *, as_former: bool) -> list[Row[Any]]:
    """By a look at all that is remembered of these replicas: it is seldom asked, and an index would cost every push. Of
    those that came as former ones there are few, and they have one."""
    statement = f"""
        SELECT op_id, status, version, problem
        FROM server_applied
        WHERE replica IN ({members(connection, "lineage")}) AND op_id IN ({members(connection, "ids")})
          AND status <> 'void' {"AND former = 1" if as_former else ""}
        ORDER BY version
    """  # noqa: S608 - the parts are constants
    values = {"lineage": encode(list(lineage)).decode(), "ids": encode(ids).decode()}
    return list(connection.execute(text(statement), values))


def _text(problem: Problem | None) -> str | None:
    return encode(problem).decode() if problem else None


def _replayed(op: Op, known: Row[Any] | None) -> Result:
    if known is None:
        raise refusal("replica-forked", f"number {op.seq} was given to an op, so long ago that it is forgotten")
    if known.op_id != op.op:
        raise refusal("replica-forked", f"number {op.seq} was given to another op before")
    if known.status in ("applied", "void"):
        return Result(op=op.op, status="duplicate", version=known.version)
    problem = msgspec.json.decode(known.problem, type=Problem) if known.problem else None
    return Result(op=op.op, status=known.status, version=known.version, problem=problem)
