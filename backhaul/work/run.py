"""The journey of one run: read, claim, judge, call, settle. However often a message comes, one run comes of it.

Every step is a short transaction of its own; none is open while the body runs. What the body raises says what becomes
of the work: TryLater and SignInRequired: again later; Refused: failed; Stopped: back to waiting, checkpointed; anything
else is a bug, and failed, as WorkManager has it: an uncaught exception is no retry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from backhaul.clock import Clock, iso
from backhaul.database import Database
from backhaul.errors import BackhaulError, DatabaseBusy, Refused, SignInRequired, Stopped, TryLater
from backhaul.telemetry import emit
from backhaul.work import ledger
from backhaul.work.conditions import Condition
from backhaul.work.constraints import judge
from backhaul.work.data import encode_data
from backhaul.work.ledger import Work

CHECK_EVERY_MS = 500

Conditions = Callable[[Connection, int], tuple[Mapping[str, Condition], frozenset[str]]]
Kind = Literal["done", "failed", "retry", "stopped", "handed-back", "not-claimed"]
KINDS: Mapping[str | None, Kind] = {"success": "done", "failure": "failed", "retry": "retry", "stopped": "stopped"}


@dataclass(frozen=True)
class Settled:
    """What became of a message. work: the row as it stands then. due_at: when it runs next, if it waits."""

    kind: Kind
    work: Work | None
    reason: str = ""
    due_at: int | None = None


def run(
    database: Database,
    work_id: str,
    generation: int,
    *,
    worker: str,
    queue: str | None,
    conditions: Conditions,
    clock: Clock,
    body: Callable[[Context], dict[str, Any] | None],
    lease_ms: int = 60_000,
    most_ms: int = 600_000,
) -> Settled:
    """Run this work, if it is still to be run, and settle it.

    queue: the one that the message came by; work of another queue is handed back untouched, and the caller rings
    there. None: called on the spot. Raises DatabaseBusy when the row could not be read, claimed or settled; an
    unsettled run is found by its lease.
    """
    with database.reading() as connection:
        row = ledger.get(connection, work_id)
    if row is None or row.state != "ENQUEUED" or row.generation != generation:
        return Settled("not-claimed", row, "it is not waiting for this message")
    if queue is not None and queue != row.queue:
        return _hand_back(row, queue)
    with database.writing() as connection:
        work = ledger.claim(connection, work_id, generation, worker=worker, now=clock.now(), lease_ms=lease_ms)
        if work is None:
            return Settled("not-claimed", row, "it is not due, or another run has it")
        closed = _postpone_if_closed(connection, work, conditions, clock.now())
    if closed is not None:
        return closed
    emit("work.claimed", task=work.task, work=work.id, attempt=work.attempt, worker=worker)
    context = Context(database, work, conditions=conditions, clock=clock, lease_ms=lease_ms, most_ms=most_ms)
    try:
        return _call(context, body)
    except Stopped as lost:
        return _not_ours(database, work, lost)


class Context:
    """What the body of a run is given: its work, a place for its progress, and word when it should stop."""

    def __init__(
        self, database: Database, work: Work, *, conditions: Conditions, clock: Clock, lease_ms: int, most_ms: int
    ) -> None:
        self.work = work
        self.database = database
        self.clock = clock
        self.stopped: Stopped | None = None
        self._conditions = conditions
        self._lease_ms = lease_ms
        self._most_ms = most_ms
        self._progress: dict[str, Any] | None = None
        self._began = self._checked = clock.now()
        self._lease_until = self._began + lease_ms

    @property
    def elapsed(self) -> int:
        """Milliseconds since the run began."""
        return self.clock.now() - self._began

    def progress(self, value: dict[str, Any]) -> None:
        """Say how far it is: a JSON object of at most 10 KiB, kept with the next check. Only the last one counts."""
        encode_data("progress", value)
        self._progress = value
        self.check()

    def check(self, *, force: bool = False) -> None:
        """Renew the lease and go on, or raise Stopped: a constraint lost, a stop asked for, TIMEOUT, LEASE_EXPIRED.

        Cheap: it looks into the database at most every half second, unless forced.
        """
        now = self.clock.now()
        if self.stopped is not None:
            raise self.stopped
        if not force and now - self._checked < CHECK_EVERY_MS:
            return
        self._checked = now
        try:
            reason = self._renew(now)
        except DatabaseBusy:
            if now >= self._lease_until:
                raise
            return  # the app has it; the lease is still good, and so are the constraints of half a second ago
        except Stopped as lost:
            self.stopped = lost
            raise
        if reason:
            self.stopped = Stopped(reason)
            raise self.stopped

    def _renew(self, now: int) -> str | None:
        with self.database.writing() as connection:
            asked = ledger.renew(connection, self.work, now=now, lease_ms=self._lease_ms, progress=self._progress)
            verdict = judge(self.work.requires, *self._conditions(connection, now))
        self._progress = None
        self._lease_until = now + self._lease_ms
        timeout = "TIMEOUT" if now - self._began >= self._most_ms else None
        return asked or verdict.stop_reason or timeout


def _hand_back(row: Work, came_by: str) -> Settled:
    emit("work.handed_back", task=row.task, work=row.id, came_by=came_by, queue=row.queue)
    return Settled("handed-back", row, f"it belongs to the queue {row.queue}", row.due_at)


def _postpone_if_closed(connection: Connection, work: Work, conditions: Conditions, now: int) -> Settled | None:
    verdict = judge(work.requires, *conditions(connection, now))
    if verdict.open:
        return None
    waiting = ledger.postpone(connection, work, now=now, due_at=now)
    return Settled("stopped", waiting, verdict.reason, waiting.due_at)


def _call(context: Context, body: Callable[[Context], dict[str, Any] | None]) -> Settled:
    try:
        output = body(context)
        if context.stopped is not None:
            raise context.stopped  # a body that swallows the stop does not get to succeed
        encode_data("output", output or {})
    except Stopped as stopped:
        return _stop(context, stopped)
    except (TryLater, SignInRequired) as error:
        return _retry(context, error)
    except Exception as error:
        return _fail(context, error)
    except BaseException:
        with suppress(Stopped, DatabaseBusy):  # the process is ending: another may take it up at once
            _stop(context, Stopped("DEPLOY_DRAIN"))
        raise
    return _succeed(context, output)


def _succeed(context: Context, output: dict[str, Any] | None) -> Settled:
    work = context.work
    with context.database.writing() as connection:
        settled = ledger.succeed(connection, work, now=context.clock.now(), output=output)
    emit("work.succeeded", task=work.task, work=work.id, milliseconds=context.elapsed)
    return _settled(settled, "")


def _retry(context: Context, error: TryLater | SignInRequired) -> Settled:
    work = context.work
    asked = error.retry_after_ms if isinstance(error, TryLater) else None
    with context.database.writing() as connection:
        settled = ledger.retry(connection, work, now=context.clock.now(), error=_text(error), retry_after_ms=asked)
    if settled.last_outcome == "failure":
        emit("work.failed", task=work.task, work=work.id, error=_text(error))
    else:
        next_at = iso(settled.due_at)
        emit("work.retried", task=work.task, work=work.id, attempt=work.attempt, next_at=next_at, error=_text(error))
    return _settled(settled, _text(error))


def _fail(context: Context, error: Exception) -> Settled:
    work = context.work
    with context.database.writing() as connection:
        settled = ledger.fail(connection, work, now=context.clock.now(), error=_text(error))
    trace = None if isinstance(error, Refused) else error
    emit("work.failed", task=work.task, work=work.id, error=_text(error), trace=trace)
    return _settled(settled, _text(error))


def _stop(context: Context, stopped: Stopped) -> Settled:
    work = context.work
    with context.database.writing() as connection:
        settled = ledger.stop(connection, work, now=context.clock.now(), reason=stopped.reason)
    emit("work.stopped", task=work.task, work=work.id, reason=stopped.reason)
    return _settled(settled, stopped.reason)


def _not_ours(database: Database, work: Work, lost: Stopped) -> Settled:
    emit("work.stopped", task=work.task, work=work.id, reason=lost.reason)
    with database.reading() as connection:
        return Settled("not-claimed", ledger.get(connection, work.id), lost.reason)


def _settled(work: Work, reason: str) -> Settled:
    return Settled(KINDS[work.last_outcome], work, reason, work.due_at if work.state == "ENQUEUED" else None)


def _text(error: Exception) -> str:
    """What a person reads: our own errors speak for themselves, others need their type's name."""
    return str(error) if isinstance(error, BackhaulError) else f"{type(error).__name__}: {error}"
