"""The journey of one run: claim, judge, call, settle. However often a message comes, one run comes of it.

Every step is a short transaction of its own; none is open while the function runs. What it returns, or raises, says
what becomes of the work: a Result; a dict or None: success; TryLater and SignInRequired: again later; Refused, and any
other exception: failed, as WorkManager has it: an uncaught exception is no retry. Once the run was asked to stop, the
row waits again, whatever the function says.

A message costs what the work costs: the claim is the first statement, and only when it finds nothing is it asked why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from backhaul.bell import Queue
from backhaul.clock import Clock, iso
from backhaul.database import Database
from backhaul.errors import (
    BackhaulError,
    DatabaseBusy,
    Misused,
    Refused,
    SignInRequired,
    Stopped,
    TryLater,
    WorkerUnknown,
    WorkUnplaceable,
)
from backhaul.telemetry import emit
from backhaul.work import hooks, ledger, mergers
from backhaul.work.context import Conditions, Context
from backhaul.work.data import encode_data
from backhaul.work.ledger import Work
from backhaul.work.placing import judge, may_run, place
from backhaul.work.result import Result

Returned = Result | Mapping[str, Any] | None
Body = Callable[[Context], Returned]
Kind = Literal["done", "failed", "retry", "stopped", "cancelled", "handed-back", "misrouted", "not-claimed"]
UNPLACEABLE_MS = 60_000
SETTLE_TRIES, SETTLE_AGAIN_SECONDS = 3, 0.1
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
    queues: Sequence[Queue] = (),
    conditions: Conditions,
    clock: Clock,
    body: Body,
    lease_ms: int = 60_000,
    most_ms: int = 600_000,
    ending: Callable[[], bool] = lambda: False,
    watch: Callable[[Context], AbstractContextManager[None]] = lambda _: nullcontext(),
    node: str = "",
    process: int | None = None,
) -> Settled:
    """Run this work, if it is still to be run, and settle it.

    queue: the one that the message came by; work of another queue is handed back untouched, and the caller rings there.
    None: called on the spot. queues: those that are declared: the run does not begin while a tag of its queue is off,
    is stopped when one goes off, and work that another of them is designated for is moved there. ending: whether the
    worker ends; the run is asked to stop then. watch: what goes on beside the function (watching.py). node, process: as
    `ledger.claim`. Raises DatabaseBusy when the row could not be claimed or settled; an unsettled run is found by its
    lease.
    """
    with database.writing(lasting=False) as connection:  # a claim that is forgotten is made again
        now = clock.now()
        work, heed = ledger.claim_and_see(
            connection,
            work_id,
            generation,
            worker=worker,
            now=now,
            lease_ms=lease_ms,
            queue=queue,
            node=node,
            process=process,
        )
        closed = _back(connection, work, queue, queues, conditions, now, heed=heed) if work is not None else None
        outputs = ledger.inputs_of(connection, work) if work is not None and work.parents else []
    if work is None:
        return _not_claimed(database, work_id, generation, queue=queue, now=now)
    if closed is not None:
        return closed
    emit("work.claimed", task=work.label, work=work.id, attempt=work.attempt, worker=worker)
    context = Context(
        database,
        work,
        queue_tags=_tags(queues, queue),
        conditions=conditions,
        clock=clock,
        lease_ms=lease_ms,
        most_ms=most_ms,
        ending=ending,
    )
    try:
        return _call(context, outputs, body, watch)
    except Stopped as lost:
        return _not_ours(database, work, lost)


def _back(
    connection: Connection,
    work: Work,
    queue: str | None,
    queues: Sequence[Queue],
    conditions: Conditions,
    now: int,
    *,
    heed: bool,
) -> Settled | None:
    """What becomes of claimed work that is not to run here and now; None when it is. heed: something that all work
    implies was said to be off, so that work which demands nothing is judged, too."""
    if queue is not None and not may_run(queues, queue, work.label):
        return _move(connection, work, queue, queues, now)
    demanded = _tags(queues, queue).union(work.requires)
    return _postpone_if_closed(connection, work, demanded, conditions, now) if demanded or heed else None


def _tags(queues: Sequence[Queue], queue: str | None) -> frozenset[str]:
    return next((one.tags for one in queues if one.name == queue), frozenset[str]())


def _move(connection: Connection, work: Work, queue: str, queues: Sequence[Queue], now: int) -> Settled:
    """It was enqueued before its kind was another queue's. Where that one cannot take it, it waits for a person."""
    try:
        there = place(queues, frozenset(work.requires), work.label).name
    except WorkUnplaceable as error:
        waiting = ledger.postpone(connection, work, now=now, due_at=now + UNPLACEABLE_MS)
        return Settled("misrouted", waiting, f"{error}; {error.hint}", waiting.due_at)
    moved = ledger.move(connection, work, queue=there, now=now)
    emit("work.handed_back", task=work.label, work=work.id, came_by=queue, queue=there)
    return Settled("handed-back", moved, f"{work.label} runs on the queue {there} alone", moved.due_at)


def _postpone_if_closed(
    connection: Connection, work: Work, demanded: frozenset[str], conditions: Conditions, now: int
) -> Settled | None:
    verdict = judge(demanded, *conditions(connection, now))
    if verdict.open:
        return None
    waiting = ledger.postpone(connection, work, now=now, due_at=now)
    return Settled("stopped", waiting, verdict.reason, waiting.due_at)


def _not_claimed(database: Database, work_id: str, generation: int, *, queue: str | None, now: int) -> Settled:
    """Why there was nothing to claim."""
    with database.reading() as connection:
        row = ledger.get(connection, work_id)
    if row is not None and row.state == "ENQUEUED" and row.attempt == 0 and (row.expires_at or now + 1) <= now:
        with database.writing() as connection:
            ledger.expire(connection, now)
            row = ledger.get(connection, work_id)
    if row is not None and row.state == "CANCELLED":
        return Settled("cancelled", row, row.last_error or "it was cancelled")
    if row is None or row.state != "ENQUEUED" or row.generation != generation:
        return Settled("not-claimed", row, "it is not waiting for this message")
    if queue not in (None, row.queue):
        emit("work.handed_back", task=row.label, work=row.id, came_by=queue, queue=row.queue)
        return Settled("handed-back", row, f"it belongs to the queue {row.queue}", row.due_at)
    if row.due_at > now:
        return Settled("not-claimed", row, f"it is not due before {iso(row.due_at)}", row.due_at)
    return Settled("not-claimed", row, "another run has had it meanwhile")


def _call(
    context: Context,
    outputs: list[dict[str, Any]],
    body: Body,
    watch: Callable[[Context], AbstractContextManager[None]],
) -> Settled:
    error: Exception | None = None
    try:
        if outputs or context.work.merger not in (None, "overwriting"):
            context.input = mergers.merged(context.work.merger, context.work.input, outputs)
        with watch(context):
            result = _result_of(body(context))
    except Stopped as stopped:
        return _stop(context, context.stop or stopped)
    except (TryLater, SignInRequired) as late:
        result = Result(kind="retry", reason=_text(late), after_ms=getattr(late, "retry_after_ms", None))
    except Exception as raised:
        error, result = raised, Result.failure(reason=_text(raised))
    except BaseException:
        with suppress(Stopped, DatabaseBusy):  # the process is ending: another may take it up at once
            _stop(context, Stopped("DEPLOY_DRAIN"))
        raise
    if context.stop is not None:
        return _stop(context, context.stop)  # a function that swallows the stop does not get to succeed, nor to fail
    if result.kind == "retry":
        return _retry(context, result)
    return _succeed(context, result) if result.kind == "success" else _fail(context, result, error)


def _result_of(returned: Returned) -> Result:
    """Raises Misused for what is no result, and for an output that cannot be kept."""
    if returned is None or isinstance(returned, Mapping):
        returned = Result.success(returned)
    if not isinstance(returned, Result):
        raise Misused(f"what it returned is no result: {type(returned).__name__}", hint="a Result, a dict or None")
    encode_data("output", returned.output)
    return returned


def _succeed(context: Context, result: Result) -> Settled:
    work = context.work
    now, output = context.clock.now(), dict(result.output)
    settled = _settle(context, lambda connection: ledger.succeed(connection, work, now=now, output=output))
    emit("work.succeeded", task=work.label, work=work.id, milliseconds=context.elapsed)
    return _settled(settled, "")


def _settle(context: Context, settle: Callable[[Connection], Work]) -> Work:
    """Some tries, under the fence: a run that has ended is not to be done again because the app was writing just then,
    or because on PostgreSQL two transactions met. Raises DatabaseBusy."""
    for _ in range(SETTLE_TRIES - 1):
        with suppress(DatabaseBusy), context.database.writing() as connection:
            return settle(connection)
        time.sleep(SETTLE_AGAIN_SECONDS)
    with context.database.writing() as connection:
        return settle(connection)


def _retry(context: Context, result: Result) -> Settled:
    work, reason = context.work, result.reason or "it asked for another try"
    now, after_ms, exactly = context.clock.now(), result.after_ms, result.exactly
    settled = _settle(
        context,
        lambda connection: ledger.retry(
            connection, work, now=now, error=reason, retry_after_ms=after_ms, exactly=exactly
        ),
    )
    if settled.last_outcome == "failure":
        emit("work.failed", task=work.label, work=work.id, error=reason)
    else:
        next_at = iso(settled.due_at)
        emit("work.retried", task=work.label, work=work.id, attempt=work.attempt, next_at=next_at, error=reason)
    return _settled(settled, reason)


def _fail(context: Context, result: Result, error: Exception | None) -> Settled:
    work, reason = context.work, result.reason or "it returned a failure"
    now, output = context.clock.now(), dict(result.output) or None
    settled = _settle(context, lambda connection: ledger.fail(connection, work, now=now, error=reason, output=output))
    trace = None if isinstance(error, (Refused, WorkerUnknown)) else error
    emit("work.failed", task=work.label, work=work.id, error=reason, trace=trace)
    if error is not None:
        hooks.tell(settled, error)
    return _settled(settled, reason)


def _stop(context: Context, stopped: Stopped) -> Settled:
    work = context.work

    def stop(connection: Connection) -> Work:
        context.keep_progress(connection)
        return ledger.stop(connection, work, now=context.clock.now(), reason=stopped.reason)

    settled = _settle(context, stop)
    emit("work.stopped", task=work.label, work=work.id, reason=stopped.reason)
    return _settled(settled, stopped.reason)


def _not_ours(database: Database, work: Work, lost: Stopped) -> Settled:
    """The row has gone on without this run: it was cancelled, or its lease passed and another has it."""
    emit("work.stopped", task=work.label, work=work.id, reason=lost.reason)
    if lost.reason == "LEASE_EXPIRED":
        with suppress(DatabaseBusy), database.writing(lasting=False) as connection:
            ledger.outlived(connection, work)
    with database.reading() as connection:
        row = ledger.get(connection, work.id)
    kind: Kind = "cancelled" if lost.reason == "CANCELLED_BY_APP" else "not-claimed"
    return Settled(kind, row, lost.reason)


def _settled(work: Work, reason: str) -> Settled:
    return Settled(KINDS[work.last_outcome], work, reason, work.due_at if work.state == "ENQUEUED" else None)


def _text(error: Exception) -> str:
    """What a person reads: our own errors speak for themselves, others need their type's name."""
    if isinstance(error, WorkerUnknown) and error.hint:
        return f"{error}; {error.hint}"
    return str(error) if isinstance(error, BackhaulError) else f"{type(error).__name__}: {error}"
