"""Ledger of backhaul_outbox: the changes on their way out. The states are explained in schema.py.

A claim freezes what it takes: from then on an op's number, stamp and bytes never change, so that sending it again is
harmless whatever became of the first try. Ops that were sent and have no outcome go again before anything new, in the
order of their numbers; a group goes whole.

The stamp of a change (see clock.py) is given at the freeze, from the time it was captured, corrected by the clock
offset as it is known then, after everything the app had seen and everything this replica stamped before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from secrets import token_hex
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, RowMapping, text

from backhaul.backoff import Backoff
from backhaul.clock import BACKFILL_STAMP, stamp
from backhaul.replica import checkpoint
from backhaul.wire import Result, problem_name

UNSETTLED = "state IN ('pending', 'sent', 'parked', 'conflict')"


class Change(NamedTuple):
    """A frozen change. key, fields: JSON as the trigger wrote it, as bytes: an app can store text that is no UTF-8."""

    id: int
    op_id: str
    group_id: str | None
    table_name: str
    key: bytes
    kind: str
    fields: bytes | None
    base: int
    send_seq: int
    hlc: int
    attempts: int
    fence: int


@dataclass(frozen=True, kw_only=True)
class Counts:
    pending: int
    parked: int
    conflicts: int
    oldest_pending_at: int | None


# ------------------------------------------------------------------------------------------------ asking


PENDING = "id > (SELECT frozen_id FROM backhaul_replica) AND state = 'pending'"


def pending(connection: Connection, now: int) -> bool:
    """Whether something could be sent now."""
    statement = f"""
        SELECT EXISTS (SELECT 1 FROM backhaul_outbox WHERE {PENDING})
            OR EXISTS (SELECT 1 FROM backhaul_outbox WHERE state = 'sent' AND next_at <= :now AND lease_until <= :now)
    """  # noqa: S608 - the parts are constants of this file
    return bool(connection.execute(text(statement), {"now": now}).scalar_one())


def waiting(connection: Connection) -> int:
    """How many changes have no outcome yet."""
    statement = f"""
        SELECT (SELECT count(*) FROM backhaul_outbox WHERE {PENDING})
             + (SELECT count(*) FROM backhaul_outbox WHERE state = 'sent')
    """  # noqa: S608 - the same
    return int(connection.execute(text(statement)).scalar_one())


def any_parked(connection: Connection) -> bool:
    statement = "SELECT EXISTS (SELECT 1 FROM backhaul_outbox WHERE state = 'parked')"
    return bool(connection.execute(text(statement)).scalar_one())


def counts(connection: Connection) -> Counts:
    statement = f"""
        SELECT (SELECT count(*) FROM backhaul_outbox WHERE state = 'parked') AS parked,
               (SELECT count(*) FROM backhaul_outbox WHERE state = 'conflict') AS conflicts,
               (SELECT min(captured_at) FROM (
                   SELECT captured_at FROM (
                       SELECT captured_at FROM backhaul_outbox WHERE {PENDING} ORDER BY id LIMIT 1)
                   UNION ALL
                   SELECT captured_at FROM (
                       SELECT captured_at FROM backhaul_outbox WHERE state = 'sent' ORDER BY send_seq LIMIT 1)
               )) AS oldest_pending_at
    """  # noqa: S608 - the same
    return Counts(pending=waiting(connection), **connection.execute(text(statement)).one()._mapping)


def of_record(connection: Connection, table: str, key: str) -> list[RowMapping]:
    """Every change of one record that is still here, oldest first. key: canonical JSON."""
    statement = """
        SELECT id, op_id, kind, state, captured_at, attempts, next_at, lease_until, version, reason, detail, settled_at
        FROM backhaul_outbox WHERE table_name = :table AND key = :key ORDER BY id
    """
    return list(connection.execute(text(statement), {"table": table, "key": key}).mappings())


def parked(connection: Connection) -> list[RowMapping]:
    statement = """
        SELECT id, op_id, group_id, table_name, key, kind, fields, captured_at, reason, detail, settled_at
        FROM backhaul_outbox WHERE state = 'parked' ORDER BY id
    """
    return list(connection.execute(text(statement)).mappings())


# ------------------------------------------------------------------------------------------------ pending -> sent

CHANGE = """
    SELECT id, op_id, group_id, table_name, CAST(key AS BLOB) AS key, kind, CAST(fields AS BLOB) AS fields, base,
           send_seq, hlc, attempts, fence, captured_at, seen_hlc, lease_until, next_at
    FROM backhaul_outbox
"""


def claim(connection: Connection, *, now: int, limit: int, lease_ms: int) -> list[Change]:
    """The next changes to send, frozen and leased; none while others are on their way or wait for their next try."""
    again = _sent(connection, limit)
    if any(row.lease_until > now or row.next_at > now for row in again):
        return []
    changes = [Change(*row[: len(Change._fields)]) for row in again]
    changes = changes or _freeze(connection, next_pending(connection, limit), now=now)
    if changes:
        _lease(connection, changes, until=now + lease_ms)
    return changes


def next_pending(connection: Connection, limit: int) -> Sequence[Row[Any]]:
    """The pending changes that the next claim takes: at least `limit`, if there are so many, and groups whole."""
    (after,) = connection.execute(text("SELECT frozen_id FROM backhaul_replica")).one()
    statement = f"{CHANGE} WHERE state = 'pending' AND id > :after ORDER BY id LIMIT :limit"
    return _whole_groups(connection, statement, "id", after=after, limit=limit)


def _sent(connection: Connection, limit: int) -> Sequence[Row[Any]]:
    statement = f"{CHANGE} WHERE state = 'sent' AND send_seq > :after ORDER BY send_seq LIMIT :limit"
    return _whole_groups(connection, statement, "send_seq", after=0, limit=limit)


def _whole_groups(connection: Connection, statement: str, number: str, *, after: int, limit: int) -> Sequence[Row[Any]]:
    """The first rows, and as many more as the last one's group has: a transaction's rows stand together."""
    rows = list(connection.execute(text(statement), {"after": after, "limit": limit}))
    while rows and rows[-1].group_id is not None:
        values = {"after": getattr(rows[-1], number), "limit": limit}
        same = list(takewhile(partial(_of_group, rows[-1].group_id), connection.execute(text(statement), values)))
        rows += same
        if len(same) < limit:
            break
    return rows


def _of_group(group: str, row: Row[Any]) -> bool:
    return bool(row.group_id == group)


def _freeze(connection: Connection, rows: Sequence[Row[Any]], *, now: int) -> list[Change]:
    if not rows:
        return []
    known = checkpoint.read(connection)
    seq, last, offset = known.last_send_seq, known.last_hlc, known.clock_offset_ms
    changes: list[Change] = []
    for row in rows:
        number, _, group, table, key, kind, fields, base, _, _, attempts, fence, captured_at, seen_hlc, *_ = tuple(row)
        seq += 1
        if kind == "backfill":
            hlc = BACKFILL_STAMP
        else:
            hlc = last = max(stamp(min(captured_at, now) + offset), seen_hlc + 1, last + 1)
        changes.append(Change(number, token_hex(16), group, table, key, kind, fields, base, seq, hlc, attempts, fence))
    checkpoint.numbered(connection, send_seq=seq, hlc=last, frozen_id=rows[-1].id)
    return changes


def _lease(connection: Connection, changes: Sequence[Change], *, until: int) -> None:
    statement = """
        UPDATE backhaul_outbox
        SET state = 'sent', op_id = ?, send_seq = ?, hlc = ?, lease_until = ?, fence = fence + 1,
            attempts = attempts + 1
        WHERE id = ? AND fence = ? AND (state = 'pending' OR state = 'sent')
    """
    rows = [(one.op_id, one.send_seq, one.hlc, until, one.id, one.fence) for one in changes]
    connection.exec_driver_sql(statement, rows)


# ------------------------------------------------------------------------------------------------ sent -> settled


def settle(connection: Connection, changes: Sequence[Change], results: dict[str, Result], *, now: int) -> None:
    """Each change by its own result; one without a result is of unknown outcome and goes again, unchanged."""
    accepted: list[tuple[int, int, int, int]] = []
    refused: list[dict[str, object]] = []
    again: list[Change] = []
    for change in changes:
        result = results.get(change.op_id)
        if result is None or result.status == "retry":
            again.append(change)
        elif result.status in ("applied", "duplicate"):
            accepted.append((result.version, now, change.id, change.fence + 1))
        else:
            refused.append(_refusal(change, result, now))
    _accept(connection, accepted)
    _park(connection, refused)
    if again:
        release(connection, again, next_at=now, error="no outcome yet")


def _accept(connection: Connection, values: list[tuple[int, int, int, int]]) -> None:
    statement = """
        UPDATE backhaul_outbox
        SET state = 'acked', version = ?, settled_at = ?, lease_until = 0, reason = NULL, detail = NULL
        WHERE id = ? AND fence = ? AND state = 'sent'
    """
    if values:
        connection.exec_driver_sql(statement, values)


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


def take_over(connection: Connection) -> None:
    """Whoever held what was sent is gone: the run that asks is the only push. (If not: the server tells doubles.)"""
    connection.execute(text("UPDATE backhaul_outbox SET lease_until = 0 WHERE state = 'sent' AND lease_until > 0"))


def hasten(connection: Connection) -> None:
    """What waits for its next try may go now: a person asked, or the network is back."""
    connection.execute(text("UPDATE backhaul_outbox SET next_at = 0 WHERE state = 'sent' AND next_at > 0"))


def park_unsendable(connection: Connection, changes: Sequence[Change], *, reason: str, detail: str, now: int) -> None:
    """The server refuses the whole message that holds just these: park them, and fill their numbers with nothing.

    Nothing of them was accepted (a refused message has no effect), and later numbers are accepted only after these.
    """
    park = """
        UPDATE backhaul_outbox
        SET state = 'parked', reason = :reason, detail = :detail, settled_at = :now, lease_until = 0, send_seq = NULL,
            hlc = NULL
        WHERE id = :id AND fence = :fence AND state = 'sent'
    """
    fill = """
        INSERT INTO backhaul_outbox
            (op_id, table_name, key, kind, captured_at, seen_hlc, base, state, send_seq, hlc)
        VALUES (:op_id, :table, '[]', 'void', :now, 0, 0, 'sent', :send_seq, :hlc)
    """
    parked_rows = [
        {"id": one.id, "fence": one.fence + 1, "reason": reason, "detail": detail[:500], "now": now} for one in changes
    ]
    connection.execute(text(park), parked_rows)
    connection.execute(
        text(fill),
        [
            {"op_id": token_hex(16), "table": one.table_name, "now": now, "send_seq": one.send_seq, "hlc": one.hlc}
            for one in changes
        ],
    )


def park_dependents(connection: Connection, causes: dict[int, str], *, now: int) -> None:
    """pending -> parked, because of a parked change. causes: id of the dependent -> op id of what it depends on."""
    statement = """
        UPDATE backhaul_outbox
        SET state = 'parked', op_id = :op_id, reason = 'depends-on-parked', detail = :detail, settled_at = :now
        WHERE id = :id AND state = 'pending'
    """
    rows = [
        {"id": one, "op_id": token_hex(16), "detail": f"depends on the parked change {cause}", "now": now}
        for one, cause in causes.items()
    ]
    connection.execute(text(statement), rows)


# ------------------------------------------------------------------------------------------------ settled -> gone


def forget_passed(connection: Connection, position: int) -> None:
    """The pull has passed these: what the feed says of the records includes them."""
    statement = "DELETE FROM backhaul_outbox WHERE state = 'acked' AND version <= :position"
    connection.execute(text(statement), {"position": position})


# ------------------------------------------------------------------------------------------------ parked -> ...


def requeue(connection: Connection, ids: Sequence[int], *, now: int) -> int:
    """parked -> pending, as a new op at the end of the queue, decided now: the old number has its outcome for good.

    What the app had seen when it wrote it (`base`) stays: a person who says "again" has not merged anything.
    """
    statement = """
        INSERT INTO backhaul_outbox (group_id, table_name, key, kind, fields, captured_at, seen_hlc, base)
        SELECT parked.group_id, parked.table_name, parked.key, parked.kind, parked.fields, :now, replica.seen_hlc,
               parked.base
        FROM backhaul_outbox AS parked, backhaul_replica AS replica
        WHERE parked.state = 'parked' AND parked.id IN (SELECT value FROM json_each(:ids))
        ORDER BY min(parked.id) OVER (PARTITION BY coalesce(parked.group_id, parked.op_id)), parked.id
    """
    connection.execute(text(statement), {"ids": json.dumps(list(ids)), "now": now})
    return discard(connection, ids)


def discard(connection: Connection, ids: Sequence[int]) -> int:
    """parked -> gone."""
    statement = "DELETE FROM backhaul_outbox WHERE id = :id AND state = 'parked'"
    return connection.execute(text(statement), [{"id": one} for one in ids]).rowcount if ids else 0
