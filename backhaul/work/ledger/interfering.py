"""What others than its run do to work: ask it to stop, cancel it, let it expire, mend its times."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, case, or_, select, update
from sqlalchemy.sql.dml import Update

from backhaul.schema import work as table
from backhaul.statements import how_many, on_postgresql
from backhaul.work.ledger.asking import LABEL, OURS, among, get, one, tagged
from backhaul.work.ledger.chaining import held_whole, hold, with_dependents
from backhaul.work.ledger.holding import free
from backhaul.work.ledger.marks import CANCEL_ALL, mark
from backhaul.work.ledger.running import UNCLAIMED
from backhaul.work.ledger.settling import LONGEST_ERROR
from backhaul.work.row import NEVER, Work

MOST_SKEW_MS = 120_000  # between the clocks of those who share a database; more than that is a clock that was wrong
EXPIRED_AT_ONCE = 1_000
UNENDED = table.c.finished_at.is_(None)
UNFINISHED = table.c.state.in_(("ENQUEUED", "RUNNING", "BLOCKED"))


class Ended(NamedTuple):
    """What was ended, and how people call it."""

    id: str
    label: str


def request_stop(connection: Connection, work_id: str, reason: str) -> Work | None:
    """Ask a running work to stop; it hears of it at its next renewal. None when it does not run."""
    asked = update(table).where(table.c.id == work_id, table.c.state == "RUNNING").values(stop_requested=reason)
    return one(connection, asked.returning(table))


def cancel_by_id(connection: Connection, work_id: str, *, now: int, by: str) -> int:
    """End the work for good, and all that waits for it, also when it is finished itself. Returns how many ended."""
    return _cancel(connection, table.c.id == work_id, now=now, by=by)


def cancel_by_tag(connection: Connection, tag: str, *, now: int, by: str) -> int:
    """End the unfinished work of the host that has the tag, and all that waits for it. Returns how many ended."""
    return _cancel(connection, and_(UNENDED, tagged(connection, [tag], UNENDED), ~OURS), now=now, by=by)


def cancel_by_name(connection: Connection, name: str, *, now: int, by: str) -> int:
    """End the unfinished work of this name, and all that waits for it. Returns how many ended."""
    return _cancel(connection, and_(UNFINISHED, table.c.name == name), now=now, by=by)


def cancel_all(connection: Connection, *, now: int, by: str) -> int:
    """End all unfinished work of the host; sync's own goes on. When that was is kept. Returns how many ended."""
    mark(connection, CANCEL_ALL, now)
    return _cancel(connection, and_(UNFINISHED, ~OURS), now=now, by=by)


def cancel(connection: Connection, work_id: str, *, now: int, by: str) -> Work | None:
    """As cancel_by_id, for one that nothing waits for. None when it is finished already, or unknown."""
    return get(connection, work_id) if cancel_by_id(connection, work_id, now=now, by=by) else None


def expire(connection: Connection, now: int, *, limit: int = EXPIRED_AT_ONCE) -> list[Ended]:
    """End what has not begun by its time, and all that waits for it. Returns what was ended: of no more than so many at
    once, go on while there is any. What another transaction holds a part of is left for the next time."""
    ids: list[str] = []
    after = ""
    while len(ids) < limit and (late := _next_late(connection, now, after=after, limit=limit - len(ids))):
        ids += held_whole(connection, late)
        after = late[-1]
    if not ids:
        return []
    these = among(connection, table.c.id, ids)
    hold(connection, these, and_dependents=True)
    late_ones = _cancelled(these, now, "it had not begun in its time", stop_reason="EXPIRED")
    ended = connection.execute(late_ones.returning(table.c.id, LABEL.label("label")))
    return [Ended(row.id, row.label) for row in ended]


def has_expired(connection: Connection, now: int) -> bool:
    """Whether there is anything to `expire`."""
    return connection.scalar(select(table.c.id).where(_late(now)).limit(1)) is not None


def has_begun_ahead(connection: Connection, now: int) -> bool:
    """Whether there is anything to `mend_clock`. It looks at all that waits: ask it seldom."""
    ahead = or_(table.c.enqueued_at > now + MOST_SKEW_MS, table.c.rung_at > now + MOST_SKEW_MS)
    return connection.scalar(select(table.c.id).where(table.c.state == "ENQUEUED", ahead).limit(1)) is not None


def mend_clock(connection: Connection, now: int) -> int:
    """Make due what began to wait in what is now the future: the machine's clock was ahead, and was set right."""
    begun = and_(table.c.state == "ENQUEUED", table.c.enqueued_at > now + MOST_SKEW_MS)
    due = case((table.c.due_at == NEVER, NEVER), else_=now)
    ahead = update(table).where(begun, *free(connection, begun)).values(enqueued_at=now, due_at=due, rung_at=0)
    rung = and_(table.c.state == "ENQUEUED", table.c.rung_at > now + MOST_SKEW_MS)
    unrung = update(table).where(rung, *free(connection, rung)).values(rung_at=0)
    return connection.execute(ahead).rowcount + connection.execute(unrung).rowcount


def _next_late(connection: Connection, now: int, *, after: str, limit: int) -> list[str]:
    late = select(table.c.id).where(_late(now), table.c.id > after).order_by(table.c.id).limit(limit)
    if on_postgresql(connection):
        late = late.with_for_update(skip_locked=True)
    return list(connection.scalars(late))


def _late(now: int) -> ColumnElement[bool]:
    return and_(table.c.expires_at <= now, table.c.finished_at.is_(None), table.c.attempt == 0)


def _cancel(connection: Connection, these: ColumnElement[bool], *, now: int, by: str) -> int:
    """There may be many, and nobody is told which."""
    hold(connection, these, and_dependents=True)
    return how_many(connection, connection.execute(_cancelled(these, now, f"cancelled by {by}")))


def _cancelled(these: ColumnElement[bool], now: int, why: str, *, stop_reason: str | None = None) -> Update:
    """With all that waits for them. A run under way hears of it at its next renewal, and its result is ignored."""
    with_another = f"{why}{':' if stop_reason else ', with'} what it waited for"
    otherwise = table.c.stop_reason if stop_reason is None else stop_reason
    return (
        update(table)
        .where(table.c.id.in_(select(with_dependents(these).c.id)), table.c.finished_at.is_(None))
        .values(UNCLAIMED)
        .values(
            state="CANCELLED",
            finished_at=now,
            progress=None,
            stop_reason=case((table.c.state == "RUNNING", "CANCELLED_BY_APP"), else_=otherwise),
            last_error=case((these, why[:LONGEST_ERROR]), else_=with_another[:LONGEST_ERROR]),
        )
    )
