"""RUNNING -> ENQUEUED: what died with its worker, taken back once its lease has passed; or -> FAILED, when it dies
again and again.

A worker can be lost for any reason, and mostly it is not for the work that it ran. So the first loss costs the lease
alone: the work is due at once. From the second one in a row on it backs off, 30 s and then twice as long each time, so
that a function that kills its process cannot spin; and by a little less at random, so that what was lost beside it does
not run beside it again. Any run that settles, whatever it says, begins the count anew.

The end comes with the loss that makes it `most_losses` in a row, if the run's own process has died and its worker has
lived on: then no machine, no deploy and no kill has ended the run. A worker says which processes it has, and the row
names the one that runs it: a run that has ended well, and found no way to settle because another program held its row,
is lost as well, but its process is there. Where the whole worker was lost each time, the work may be to blame (it has
its worker's process to itself in no pool but prefork) or may not, and so where the process lived; it is given
WITH_ITS_WORKER times as many, which takes days. Sync's own work is tried for ever.

A claim is made by the process that calls the function, just before it does: what only waited in a worker that died was
not begun, and has lost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Text,
    and_,
    case,
    column,
    literal_column,
    not_,
    select,
    update,
)

from backhaul.backoff import Backoff
from backhaul.schema import work as table
from backhaul.work import roster
from backhaul.work.ledger.asking import OURS, among, every
from backhaul.work.ledger.chaining import held_whole
from backhaul.work.ledger.given import given
from backhaul.work.ledger.settling import fail, waiting
from backhaul.work.row import Work

LONGEST_LEASE_MS = 3_600_000  # one that lasts longer was given while the clock was wrong
MOST_LOSSES = 5
WITH_ITS_WORKER = 4
RECOVERED_AT_ONCE = 200
BACKOFF = Backoff(jitter=0.5)
# A run renews its lease every five seconds, and a worker says as often that it lives: one that was heard of in the last
# ten seconds of a lease that was not renewed has outlived the run.
OUTLIVED_MS = 10_000
Witness = Literal["died", "lived", "gone"]
SAID = {
    "died": "its process died, and its worker lived on",
    "lived": "its worker lived on, and it was not settled in its time",
    "gone": "its worker died with it",
}


def has_lost(connection: Connection, now: int) -> bool:
    """Whether there is anything to `recover`."""
    return connection.scalar(select(table.c.id).where(_dead(now)).limit(1)) is not None


def recover(
    connection: Connection, now: int, *, most_losses: int = MOST_LOSSES, limit: int = RECOVERED_AT_ONCE
) -> list[Work]:
    """Take back what died with its worker: the lease has passed. The attempt stays counted. What was lost too often in
    a row has failed, and all that waits for it; of periodic work the period has. Returns all of these: no more than so
    many at once, go on while there is any.

    What another transaction holds, or of what is to fail anything that waits for it, is left for the next time: on
    PostgreSQL an app that has appended to running work, and not committed, keeps its lease from being renewed, and is
    not to hold Beat up as well.
    """
    ids: list[str] = []
    after = ""
    while len(ids) < limit and (lost := _next_dead(connection, now, after=after, limit=limit - len(ids))):
        ids += _taken_back_or_failed(connection, lost, now, most_losses)
        after = lost[-1].id
    return every(connection, select(table).where(among(connection, table.c.id, ids)).order_by(table.c.id))


def _next_dead(connection: Connection, now: int, *, after: str, limit: int) -> list[Work]:
    dead = select(table).where(_dead(now), table.c.id > after).order_by(table.c.id).limit(limit)
    return every(connection, dead.with_for_update(skip_locked=True))


def _taken_back_or_failed(connection: Connection, lost: Sequence[Work], now: int, most_losses: int) -> list[str]:
    witnessed = _witnessed(connection, lost)
    again, last = [], {}
    for work in lost:
        alone = witnessed[work.id] == "died"
        if work.ours or work.losses + 1 < (most_losses if alone else most_losses * WITH_ITS_WORKER):
            again.append(work)
        else:
            last[work.id] = work
    _take_back(connection, again, now)
    whole = held_whole(connection, list(last))
    for work_id in whole:
        work = last[work_id]
        said = f"WORKER_LOST, {work.losses + 1} in a row while it ran: the last time {SAID[witnessed[work_id]]}"
        fail(connection, work, now=now, error=said)
    return [*(work.id for work in again), *whole]


def _witnessed(connection: Connection, lost: Sequence[Work]) -> dict[str, Witness]:
    """Of each, what its worker says of it. One that was started anew says nothing of the one before."""
    known = {(one.node, one.name): one for one in roster.named(connection, {str(work.worker) for work in lost})}
    return {work.id: _witness(work, known.get((str(work.node), str(work.worker)))) for work in lost}


def _witness(work: Work, worker: roster.Worker | None) -> Witness:
    if worker is None or worker.started_at > (work.started_at or 0) or worker.seen_at <= work.lease_until - OUTLIVED_MS:
        return "gone"
    if work.process is None or worker.processes is None or work.process in (worker.pid, *worker.processes):
        return "lived"
    return "died"


def _take_back(connection: Connection, lost: Sequence[Work], now: int) -> None:
    if not lost:
        return
    due = [now + BACKOFF.delay_ms(work.losses) if work.losses else min(work.due_at, now) for work in lost]
    rows = [(work.id, work.fence, at) for work, at in zip(lost, due, strict=True)]
    these = given(connection, (column("id", Text), column("fence", BigInteger), column("due", BigInteger)), rows)
    values = waiting() | {
        "due_at": these.c.due,
        "losses": case((OURS, 0), else_=table.c.losses + 1),
        "progress": None,
        "stop_reason": "WORKER_LOST",
        "last_outcome": "lost",
    }
    held = and_(table.c.id == these.c.id, table.c.state == "RUNNING", table.c.fence == these.c.fence)
    connection.execute(update(table).where(held).values(values))


def _dead(now: int) -> ColumnElement[bool]:
    # Spelt out, and no parameter: only so a database sees that a partial index will do.
    running = table.c.state == literal_column("'RUNNING'")
    return and_(running, not_(table.c.lease_until.between(now + 1, now + LONGEST_LEASE_MS)))
