"""RUNNING -> ENQUEUED: what died with its worker, taken back once its lease has passed; or -> FAILED, when it dies
again and again.

A worker can be lost for any reason, and mostly it is not for the work that it ran. So the first loss costs the lease
alone: the work is due at once. From the second one in a row on it backs off, 30 s and then twice as long each time, so
that a function that kills its process cannot spin; and by a little less at random, so that what was lost beside it does
not run beside it again. Any run that settles, whatever it says, begins the count anew.

Two things are counted. A crash is a loss in which the run's own process has died and its worker has lived on: then no
machine, no deploy and no kill has ended the run, and `most_losses` of them are the end. A worker says which processes
it has, and the row names the one that runs it: a run that has ended well, and found no way to settle because another
program held its row, is lost as well, but its process is there. Where the whole worker was lost, the work may be to
blame (it has its worker's process to itself in no pool but prefork, and a container may be ended whole) or may not, and
so where the process lived; of losses of all kinds WITH_ITS_WORKER times as many are the end, which takes days. Sync's
own work is tried for ever.

What says nothing against the work is not counted at all: a run that had been asked to stop (a drain, a lost
constraint), and was ended before it had; and a run that was taken for lost and is heard of after all (its machine had
slept, or its clock was wrong).

A claim is made by the process that calls the function, just before it does: what only waited in a worker that died was
not begun, and has lost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnClause,
    ColumnElement,
    Connection,
    FromClause,
    Text,
    and_,
    column,
    func,
    literal,
    literal_column,
    not_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from backhaul.backoff import Backoff
from backhaul.schema import work as table
from backhaul.statements import on_postgresql
from backhaul.work import roster
from backhaul.work.ledger import triggering
from backhaul.work.ledger.asking import among, every
from backhaul.work.ledger.chaining import fail_dependents, held_whole
from backhaul.work.ledger.running import UNCLAIMED
from backhaul.work.ledger.settling import NONE_LOST, period_closed, waiting
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
COUNTS = ("losses", "crashes")
FAILED: Mapping[str, Any] = {
    **UNCLAIMED,
    **NONE_LOST,
    **{"state": "FAILED", "progress": None, "checkpoint": None, "stop_reason": None, "last_outcome": "failure"},
}
SAID = {
    "died": "its process died, and its worker lived on",
    "lived": "its worker lived on, and it was not settled in its time",
    "gone": "its worker died with it",
}


class _Lost(NamedTuple):
    """losses, crashes: with this one, if it counts."""

    work: Work
    witness: Witness
    losses: int
    crashes: int
    counts: bool

    @property
    def said(self) -> str:
        return f"WORKER_LOST, {self.losses} in a row while it ran: the last time {SAID[self.witness]}"


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


def outlived(connection: Connection, work: Work) -> None:
    """This run was taken for lost, and is heard of: that is no loss of its work, whoever has it now."""
    later = table.c.id == work.id, table.c.fence >= work.fence, table.c.losses > 0, table.c.finished_at.is_(None)
    connection.execute(update(table).where(*later).values(losses=table.c.losses - 1))


def _next_dead(connection: Connection, now: int, *, after: str, limit: int) -> list[Work]:
    dead = select(table).where(_dead(now), table.c.id > after).order_by(table.c.id).limit(limit)
    return every(connection, dead.with_for_update(skip_locked=True))


def _taken_back_or_failed(connection: Connection, lost: Sequence[Work], now: int, most_losses: int) -> list[str]:
    witnessed = _witnessed(connection, lost)
    again = [_counted(work, witnessed[work.id]) for work in lost]
    last = {
        one.work.id: one
        for one in again
        if one.crashes >= most_losses or one.losses >= most_losses * WITH_ITS_WORKER
        if one.counts and not one.work.ours
    }
    again = [one for one in again if one.work.id not in last]
    _take_back(connection, again, now)
    whole = held_whole(connection, list(last))
    _fail(connection, [last[work_id] for work_id in whole], now)
    return [*(one.work.id for one in again), *whole]


def _counted(work: Work, witness: Witness) -> _Lost:
    if work.ours or work.stop_requested is not None:
        return _Lost(work, witness, work.losses, work.crashes, counts=False)
    return _Lost(work, witness, work.losses + 1, work.crashes + (witness == "died"), counts=True)


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


def _take_back(connection: Connection, lost: Sequence[_Lost], now: int) -> None:
    if not lost:
        return
    given = _given(
        connection, lost, due=[_due(one, now) for one in lost], **{name: _each(lost, name) for name in COUNTS}
    )
    values = waiting() | {
        "due_at": given.c.due,
        **{name: given.c[name] for name in COUNTS},
        "progress": None,
        "stop_reason": "WORKER_LOST",
        "last_outcome": "lost",
    }
    connection.execute(update(table).where(*_held(given)).values(values))


def _due(one: _Lost, now: int) -> int:
    if one.work.override_at is not None and one.work.override_at > now:
        return one.work.override_at  # said while it ran
    if not one.work.losses:
        return min(one.work.due_at, now)
    return now + BACKOFF.delay_ms(one.work.losses)


def _fail(connection: Connection, lost: Sequence[_Lost], now: int) -> None:
    one_time, periodic = ([one for one in lost if one.work.periodic == is_periodic] for is_periodic in (False, True))
    if one_time:
        given = _given(connection, one_time, said=[one.said for one in one_time])
        failed = update(table).where(*_held(given)).values(FAILED).values(finished_at=now, last_error=given.c.said)
        connection.execute(failed)
        fail_dependents(connection, [one.work.id for one in one_time if one.work.children], now)
    if periodic:
        given = _given(connection, periodic, said=[one.said for one in periodic])
        closed = period_closed(now, "failure", table.c.override_at > table.c.started_at)
        connection.execute(update(table).where(*_held(given)).values(closed | {"last_error": given.c.said}))
        watching = [one.work.id for one in periodic if one.work.trigger_update_ms is not None]
        if watching:
            triggering.consumed(connection, watching)


def _each(lost: Sequence[_Lost], name: str) -> list[int]:
    return [getattr(one, name) for one in lost]


def _held(given: FromClause) -> tuple[ColumnElement[bool], ...]:
    return table.c.id == given.c.id, table.c.state == "RUNNING", table.c.fence == given.c.fence


def _given(connection: Connection, lost: Sequence[_Lost], **more: Sequence[int | str]) -> FromClause:
    """As rows, however many, each column in one parameter, or all in one. more: beside the id and the fence."""
    ids, fences = [one.work.id for one in lost], [one.work.fence for one in lost]
    of: dict[str, Sequence[int | str]] = {"id": ids, "fence": fences, **more}
    kinds: dict[str, Any] = {name: Text if isinstance(each[0], str) else BigInteger for name, each in of.items()}
    columns: list[ColumnClause[Any]] = [column(name, kind) for name, kind in kinds.items()]
    if on_postgresql(connection):
        arrays = [literal(list(each), ARRAY(kinds[name])) for name, each in of.items()]
        return func.unnest(*arrays).table_valued(*columns, name="given").render_derived()
    rows = msgspec.json.encode(list(zip(*of.values(), strict=True))).decode()
    each_row: Any = func.json_each(rows).table_valued("value").c.value
    members = [func.json_extract(each_row, f"$[{place}]").label(one.name) for place, one in enumerate(columns)]
    return select(*members).subquery("given")


def _dead(now: int) -> ColumnElement[bool]:
    # Spelt out, and no parameter: only so a database sees that a partial index will do.
    running = table.c.state == literal_column("'RUNNING'")
    return and_(running, not_(table.c.lease_until.between(now + 1, now + LONGEST_LEASE_MS)))
