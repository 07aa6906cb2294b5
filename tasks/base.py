"""From a message to a run and back: the part that all tasks share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from billiard.process import current_process
from celery import Celery, Task, shared_task
from celery.exceptions import Ignore, Reject, Retry

from backhaul.bell import Ring
from backhaul.clock import SystemClock
from backhaul.errors import DatabaseBusy, Stopped
from backhaul.telemetry import emit
from backhaul.work import ledger, roster
from backhaul.work.context import Context
from backhaul.work.ledger import Work
from backhaul.work.run import Body, Settled, run
from backhaul.work.watching import watched
from config.bell import publish
from config.machine import conditions_of
from config.settings import Settings
from tasks import ending, process
from tasks.revoking import Revoked, WorkTask

LEASE_MS = 20_000
LONGEST_REASON = 300  # characters of a reason that Flower is shown
MOST_CHILDREN = 50  # that are rung for at once when what they waited for is done; Beat has the rest


class WorkFailed(Exception):
    """The work failed; the text is the reason, as `backhaul why` tells it in full."""


class RunAgain(Exception):
    """The work waits for another run; the text is the reason. Celery's events tell a retry's exception alone."""


def named(name: str) -> Callable[[Callable[[Task, str, int], str]], Task]:
    """A task of this name, called with (task, work id, generation)."""
    decorator: Callable[[Callable[[Task, str, int], str]], Task] = shared_task(name=name, bind=True, base=WorkTask)
    return decorator


def settings_of(task: Task) -> Settings:
    settings: Settings = task.app.settings
    return settings


def run_work(task: Task, work_id: str, generation: int, body: Body) -> Settled:
    """Run the work that the message names. Raises Retry when its row is out of reach: Beat rings again."""
    settings = settings_of(task)
    queue = queue_of(task)
    if ending.begun() and queue is not None:
        raise Reject("this worker is ending", requeue=True)
    try:
        with in_reach():
            settled = run(
                process.database(settings),
                work_id,
                generation,
                worker=worker_of(task),
                node=settings.node,
                process=os.getpid(),
                queue=queue,
                queues=task.app.declared_queues,
                conditions=conditions_of(settings, worker_name=worker_of(task)),
                clock=SystemClock(),
                body=body,
                lease_ms=LEASE_MS,
                most_ms=settings.work.run_limit,
                ending=ending.begun,
                watch=_watch(settings),
            )
    finally:
        process.write_traffic(settings)
    if settled.kind in ("handed-back", "misrouted"):
        _count_misrouted(task, settings)
    return settled


@contextmanager
def in_reach() -> Iterator[None]:
    """Raises Retry where the database is out of reach before a run: Beat rings again."""
    try:
        yield
    except DatabaseBusy as error:
        raise _again(str(error), None) from None


def _count_misrouted(task: Task, settings: Settings) -> None:
    with suppress(DatabaseBusy), process.database(settings).writing(lasting=False) as connection:
        roster.misrouted(connection, worker_of(task), settings.node)


def told(settled: Settled) -> str:
    """Say it in Celery's words: an answer is SUCCESS, Retry RETRY, WorkFailed FAILURE, Revoked REVOKED. Of a message
    that has run nothing, because another one did, nothing is said: the other one has the same id."""
    if settled.kind == "failed":
        raise WorkFailed(_shown(settled.reason)) from None
    if settled.kind == "cancelled":
        work = settled.work
        raise Revoked(_shown(settled.reason), work is not None and work.stop_reason == "EXPIRED") from None
    if settled.kind == "done":
        return settled.kind
    if settled.kind == "not-claimed" and settled.due_at is None:
        raise Ignore(_shown(settled.reason)) from None
    raise _again(settled.reason, settled.due_at) from None


def ring_what_is_left(task: Task, settled: Settled) -> None:
    """What waits again and could run at once need not wait for Beat; nor need what has waited for this work."""
    work = settled.work
    if work is None:
        return
    if settled.kind == "done" and work.children:
        _ring_what_waited(task)
    if settled.due_at is None:
        return
    at_once = settled.kind in ("done", "handed-back") or (settled.kind == "stopped" and settled.reason == "TIMEOUT")
    if at_once and work.state == "ENQUEUED" and settled.due_at <= SystemClock().now():
        ring(task.app, work.ring)


def ring(app: Celery, *rings: Ring) -> None:
    try:
        publish(app, rings)
    except Exception as error:  # a hint, and Beat has it too
        emit("bell.failed", error=type(error).__name__)


def queue_of(task: Task) -> str | None:
    """The queue that the message came by; None when the task was called on the spot."""
    information = task.request.delivery_info or {}
    queue: str | None = information.get("routing_key")
    return queue


def worker_of(task: Task) -> str:
    return str(task.request.hostname or "here")


def _ring_what_waited(task: Task) -> None:
    settings, now = settings_of(task), SystemClock().now()
    database = process.database(settings)
    try:
        with database.writing() as connection:
            due: list[Work] = ledger.due(
                connection, now, ring_again_ms=now, limit=MOST_CHILDREN, queues=list(settings.queues)
            )
            ledger.mark_rung(connection, due, now)
    except DatabaseBusy:
        return
    ring(task.app, *(one.ring for one in due))


def _watch(settings: Settings) -> Callable[[Context], AbstractContextManager[None]]:
    return lambda context: watched(context, grace_ms=settings.work.stop_grace, give_up=_give_up)


def _give_up(context: Context) -> None:
    """A function that does not hear: its process is ended where it has one to itself. A thread cannot be."""
    alone = getattr(current_process(), "index", None) is not None  # a child of the prefork pool
    emit(
        "work.ignores_stop",
        task=context.work.label,
        work=context.id,
        reason=context.stop_reason,
        seconds=context.elapsed // 1000,
        then="its process is ended" if alone else "only its worker's end will end it",
    )
    if alone:
        reason = context.stop_reason or "UNKNOWN"
        with suppress(Stopped, DatabaseBusy), context.database.writing() as connection:
            ledger.stop(connection, context.work, now=context.clock.now(), reason=reason)
        os.kill(os.getpid(), signal.SIGKILL)


def _again(reason: str, due_at: int | None) -> Retry:
    reason, seconds = _shown(reason), _seconds_until(due_at)
    said = f"{reason}; again in {seconds:g} s"
    return Retry(message=said, exc=RunAgain(said), when=seconds)


def _seconds_until(due_at: int | None) -> float:
    return 0.0 if due_at is None else max(0.0, round((due_at - SystemClock().now()) / 1000, 1))


def _shown(reason: str) -> str:
    """The first line: what follows it, of a database's error for one, can be a row's data."""
    return reason.split("\n", 1)[0][:LONGEST_REASON]
