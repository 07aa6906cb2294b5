"""From a message to a run and back: the part that all tasks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery, Task, shared_task
from celery.exceptions import Retry

from backhaul.bell import Ring
from backhaul.clock import SystemClock
from backhaul.errors import DatabaseBusy
from backhaul.telemetry import emit
from backhaul.work.run import Context, Settled, run
from config.bell import publish
from config.machine import conditions_of
from config.settings import Settings
from tasks import lease, process

Body = Callable[[Context], dict[str, Any] | None]
LONGEST_REASON = 300  # characters of a reason that Flower is shown


class WorkFailed(Exception):
    """The work failed; the text is the reason, as `backhaul why` tells it in full."""


class RunAgain(Exception):
    """The work waits for another run; the text is the reason. Celery's events tell a retry's exception alone."""


def named(name: str) -> Callable[[Callable[[Task, str, int], str]], Task]:
    """A task of this name, called with (task, work id, generation)."""
    decorator: Callable[[Callable[[Task, str, int], str]], Task] = shared_task(name=name, bind=True)
    return decorator


def settings_of(task: Task) -> Settings:
    settings: Settings = task.app.settings
    return settings


def run_work(task: Task, work_id: str, generation: int, body: Body) -> Settled:
    """Run the work that the message names. Raises Retry when its row is out of reach: Beat rings again."""
    settings = settings_of(task)

    def leased(context: Context) -> dict[str, Any] | None:
        with lease.renewed(context):
            return body(context)

    try:
        return run(
            process.database(settings),
            work_id,
            generation,
            worker=worker_of(task),
            queue=queue_of(task),
            conditions=conditions_of(settings),
            clock=SystemClock(),
            body=leased,
            lease_ms=lease.LEASE_MS,
        )
    except DatabaseBusy as error:
        raise _again(str(error), None) from None


def told(settled: Settled) -> str:
    """Say it in Celery's words: an answer is SUCCESS, Retry is RETRY and WorkFailed is FAILURE."""
    if settled.kind == "failed":
        raise WorkFailed(_shown(settled.reason)) from None
    if settled.kind in ("retry", "stopped"):
        raise _again(settled.reason, settled.due_at) from None
    return settled.kind if settled.kind == "done" else f"{settled.kind}: {settled.reason}"


def ring_what_is_left(task: Task, settled: Settled) -> None:
    """What waits again and could run at once need not wait for Beat."""
    work = settled.work
    if work is None or settled.due_at is None:
        return
    at_once = settled.kind in ("done", "handed-back") or (settled.kind == "stopped" and settled.reason == "TIMEOUT")
    if at_once and work.state == "ENQUEUED" and settled.due_at <= SystemClock().now():
        ring(task.app, work.ring)


def ring(app: Celery, ring: Ring) -> None:
    try:
        publish(app, [ring])
    except Exception as error:  # a hint, and Beat has it too
        emit("bell.failed", error=type(error).__name__)


def queue_of(task: Task) -> str | None:
    """The queue that the message came by; None when the task was called on the spot."""
    information = task.request.delivery_info or {}
    queue: str | None = information.get("routing_key")
    return queue


def worker_of(task: Task) -> str:
    return str(task.request.hostname or "here")


def _again(reason: str, due_at: int | None) -> Retry:
    reason, seconds = _shown(reason), _seconds_until(due_at)
    return Retry(message=f"{reason}; again in {seconds:g} s", exc=RunAgain(reason), when=seconds)


def _seconds_until(due_at: int | None) -> float:
    return 0.0 if due_at is None else max(0.0, round((due_at - SystemClock().now()) / 1000, 1))


def _shown(reason: str) -> str:
    """The first line: what follows it, of a database's error for one, can be a row's data."""
    return reason.split("\n", 1)[0][:LONGEST_REASON]
