"""sent -> settled -> gone: what became of each op that went out, and of those that wait for another try.

Where the pull passes a change's version while its answer is still out, what the feed said of the record was withheld
and does not come again. Such a change is `overtaken` once it is settled: acked, without a version, until its record
was fetched (see pull.py). While it is `sent`, its version is how far the feed has told of its record meanwhile.

Only an op that the server has put back for its stamp is stamped anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping

from backhaul.backoff import Backoff
from backhaul.replica import checkpoint, lanes
from backhaul.replica.outbox.claiming import Change, stamp_of
from backhaul.statements import members, run, run_together, text
from backhaul.wire import Result, problem_name


def settle(connection: Connection, changes: Sequence[Change], results: dict[str, Result], *, now: int) -> list[Change]:
    """Each change by its own result; returns those that have none yet, as they are."""
    accepted: list[tuple[int, int, int, int, int]] = []
    position = checkpoint.read(connection).position
    last_hlc = 0
    refused: list[dict[str, object]] = []
    again: list[Change] = []
    for change in changes:
        result = results.get(change.op_id)
        if result is None or result.status == "retry":
            again.append(change)
        elif change.kind == "void":
            accepted.append((max(1, result.version), result.version, now, change.id, change.fence + 1))
        elif result.status in ("applied", "duplicate"):
            # Taken before what we have pulled: by the one that we were before a backup. The pull withheld what it said.
            version = result.version
            accepted.append((0 if version <= position else version, version, now, change.id, change.fence + 1))
            if change.hlc > last_hlc:  # what is offered anew has an older one
                last_hlc = change.hlc
        else:
            refused.append(_refusal(change, result, now))
    _accept(connection, accepted)
    _park(connection, refused)
    checkpoint.stamped(connection, last_hlc)
    return again


def _accept(connection: Connection, values: list[tuple[int, int, int, int, int]]) -> None:
    statement = """
        UPDATE backhaul_outbox
        SET state = 'acked', version = CASE WHEN coalesce(version, 0) >= ? THEN NULL ELSE ? END, settled_at = ?,
            lease_until = 0, reason = NULL, detail = NULL
        WHERE id = ? AND fence = ? AND state = 'sent'
    """
    together = """
        UPDATE backhaul_outbox AS outbox
        SET state = 'acked',
            version = CASE WHEN coalesce(outbox.version, 0) >= told.passed THEN NULL ELSE told.version END,
            settled_at = told.settled_at, lease_until = 0, reason = NULL, detail = NULL
        FROM unnest(?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[])
             AS told (passed, version, settled_at, id, fence)
        WHERE outbox.id = told.id AND outbox.fence = told.fence AND state = 'sent'
    """
    run_together(connection, statement, values, together=together)


def _refusal(change: Change, result: Result, now: int) -> dict[str, object]:
    problem = result.problem
    return {
        "id": change.id,
        "fence": change.fence + 1,
        "state": "conflict" if result.status == "conflict" else "parked",
        "reason": problem_name(problem) if problem else "refused",
        "detail": (problem.detail or problem.title) if problem else "",
        "now": now,
    }


def _park(connection: Connection, values: list[dict[str, object]]) -> None:
    statement = """
        UPDATE backhaul_outbox
        SET state = :state, reason = :reason, detail = :detail, settled_at = :now, lease_until = 0
        WHERE id = :id AND fence = :fence AND state = 'sent'
    """
    if values:
        connection.execute(text(statement), values)


def release(connection: Connection, changes: Sequence[Change], *, next_at: int, error: str) -> None:
    """The outcome is unknown, or the other side asked to wait: the same bytes again, not before `next_at`."""
    statement = """
        UPDATE backhaul_outbox SET lease_until = 0, next_at = :next_at, reason = :error
        WHERE id = :id AND fence = :fence AND state = 'sent'
    """
    error = error[:500]
    connection.execute(
        text(statement),
        [{"id": one.id, "fence": one.fence + 1, "next_at": next_at, "error": error} for one in changes],
    )


def next_try(changes: Sequence[Change], policy: Backoff, now: int) -> int:
    return now + policy.delay_ms(max(one.attempts for one in changes) + 1)


def take_over(connection: Connection, lane: int = 0) -> None:
    """Whoever held what was sent is gone: the run that asks is the lane's only push. (If not: the server tells
    doubles.)"""
    statement = f"UPDATE backhaul_outbox SET lease_until = 0 WHERE {lanes.SENT_IN} AND lease_until > 0"  # noqa: S608 - the same
    connection.execute(text(statement), lanes.sent_in(lane))


def hasten(connection: Connection) -> None:
    """What waits for its next try may go now: a person asked, or the network is back."""
    connection.execute(text("UPDATE backhaul_outbox SET next_at = 0 WHERE state = 'sent' AND next_at > 0"))


def restamp(connection: Connection, *, now: int, lane: int = 0) -> bool:
    """The server has put back what was sent in a lane, as stamped too far ahead, and so has none of it: stamp it anew,
    by what is known of the clocks now. Returns whether the first of it is stamped earlier, and may go again at once."""
    sent = f"""
        SELECT id, hlc, captured_at, seen_hlc FROM backhaul_outbox
        WHERE {lanes.SENT_IN} AND (kind = 'insert' OR kind = 'update' OR kind = 'delete') ORDER BY send_seq
    """  # noqa: S608 - a constant
    rows = connection.execute(text(sent), lanes.sent_in(lane)).all()
    known = checkpoint.read(connection)
    last = known.last_hlc
    stamps: list[tuple[int, int]] = []
    for row in rows:
        last = stamp_of(row.captured_at, row.seen_hlc, last, now=now, offset=known.clock_offset_ms)
        stamps.append((last, row.id))
    if stamps:
        run(connection, "UPDATE backhaul_outbox SET hlc = ? WHERE id = ? AND state = 'sent'", stamps)
    return bool(stamps) and stamps[0][0] < rows[0].hlc


def told(connection: Connection, table: str, keys: Sequence[str], position: int) -> None:
    """The feed has told of these records, up to this position, and what was sent of them was laid over it."""
    statement = f"""
        UPDATE backhaul_outbox SET version = :position
        WHERE state = 'sent' AND table_name = :table AND key IN ({members(connection, "keys")})
    """  # noqa: S608 - the parts are constants
    connection.execute(text(statement), {"table": table, "keys": json.dumps(list(keys)), "position": position})


# ------------------------------------------------------------------------------------------------ settled -> gone


def forget_passed(connection: Connection, position: int) -> None:
    """The pull has passed these: what the feed says of the records includes them. What is withheld of a record is from
    before, and the feed does not tell us what we have done: that is fetched, as if it were overtaken."""
    withheld = """
        UPDATE backhaul_outbox SET version = NULL
        WHERE state = 'acked' AND version <= :position AND EXISTS (
            SELECT 1 FROM backhaul_conflict
            WHERE backhaul_conflict.state = 'withheld' AND backhaul_conflict.table_name = backhaul_outbox.table_name
              AND backhaul_conflict.key = backhaul_outbox.key AND backhaul_conflict.version < backhaul_outbox.version)
    """
    connection.execute(text(withheld), {"position": position})
    highest = """
        SELECT count(*), max(CASE WHEN kind <> 'void' THEN hlc END) FROM backhaul_outbox
        WHERE state = 'acked' AND version <= :position
    """
    count, hlc = connection.execute(text(highest), {"position": position}).one()
    if not count:
        return
    statement = "DELETE FROM backhaul_outbox WHERE state = 'acked' AND version <= :position"
    connection.execute(text(statement), {"position": position})
    checkpoint.passed(connection, hlc or 0)


def overtaken(connection: Connection, limit: int) -> list[RowMapping]:
    """The first changes whose records are to be fetched: id, table_name, key."""
    statement = """
        SELECT id, table_name, key FROM backhaul_outbox
        WHERE state = 'acked' AND version IS NULL ORDER BY id LIMIT :limit
    """
    return list(connection.execute(text(statement), {"limit": limit}).mappings())


def forget_overtaken(connection: Connection, ids: Sequence[int]) -> None:
    """Their records were fetched, in this same transaction."""
    highest = f"""
        SELECT max(hlc) FROM backhaul_outbox
        WHERE id IN ({members(connection, "ids", "bigint")}) AND state = 'acked' AND version IS NULL
    """  # noqa: S608 - the parts are constants
    hlc = connection.execute(text(highest), {"ids": json.dumps(list(ids))}).scalar()
    checkpoint.passed(connection, hlc or 0)
    statement = "DELETE FROM backhaul_outbox WHERE id = :id AND state = 'acked' AND version IS NULL"
    connection.execute(text(statement), [{"id": one} for one in ids])
