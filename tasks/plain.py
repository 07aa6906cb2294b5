"""backhaul.task: a plain Celery task of the host as work, by its name, with its arguments, and unchanged.

Celery's own tracer calls it, as `apply` would, so that its hooks and signals come as ever; what it asks of Celery
(another try, to be ignored, to be rejected) is a result of the work, and no message of its own is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from celery import Celery, Task
from celery._state import _get_active_apps
from celery.app.trace import build_tracer
from celery.exceptions import Reject, Retry
from celery.states import FAILURE, IGNORED, REJECTED, RETRY

from backhaul.errors import Misused, WorkerUnknown
from backhaul.telemetry import emit
from backhaul.work.context import Context
from backhaul.work.data import encode_data
from backhaul.work.result import Result
from tasks.base import named, ring_what_is_left, run_work, told, worker_of


@named("backhaul.task")
def run_plain_task(task: Task, work_id: str, generation: int) -> str:
    def body(context: Context) -> Result:
        plain = _find(task.app, str(context.work.function))
        return _call(plain, context, hostname=worker_of(task))

    settled = run_work(task, work_id, generation, body)
    ring_what_is_left(task, settled)
    return told(settled)


def _find(ours: Celery, name: str) -> Task:
    """In our app, where shared tasks are, or in one that the host's modules have made. Raises WorkerUnknown."""
    for app in (ours, *_get_active_apps()):
        if name in app.tasks:
            return app.tasks[name]
    raise WorkerUnknown(
        f"no Celery task {name!r} is registered here",
        hint="name its module in backhaul.toml, [work] modules, and start the workers again",
    )


def _call(plain: Task, context: Context, *, hostname: str) -> Result:
    given = context.checkpointed or context.input  # a checkpoint: another try was asked for with other arguments
    args, kwargs = given.get("args") or [], given.get("kwargs") or {}
    request = {
        "id": context.work.task_id,
        "is_eager": True,  # `self.retry` raises Retry, and publishes nothing
        "retries": context.work.retries,
        "hostname": hostname,
        "delivery_info": {"is_eager": True},
    }
    tracer = build_tracer(plain.name, plain, eager=True, propagate=False, app=plain.app)
    returned, information, _, _ = tracer(context.work.task_id, args, kwargs, request)
    if information is None:
        return Result.success(_output(context, returned))
    return _told(context, information.state, information.retval, args, kwargs)


def _told(context: Context, state: str, said: Any, args: Any, kwargs: Any) -> Result:
    if state == RETRY:
        return _retry(context, said, args, kwargs)
    if state == IGNORED:
        return Result.success()
    if state == REJECTED:
        return _rejected(said)
    if state == FAILURE and isinstance(said, Exception):
        raise said
    raise Misused(f"Celery's tracer ended with {state}", hint="report it, with the task")


def _retry(context: Context, asked: Retry, args: Any, kwargs: Any) -> Result:
    again = {"args": list(asked.sig.args), "kwargs": dict(asked.sig.kwargs)}
    if again != {"args": list(args), "kwargs": dict(kwargs)}:
        context.checkpoint(again)
    because = f"{type(asked.exc).__name__}: {asked.exc}" if isinstance(asked.exc, Exception) else str(asked.exc or "")
    return Result(kind="retry", reason=because, after_ms=_milliseconds(asked.when), exactly=True)


def _rejected(asked: Reject) -> Result:
    reason = str(asked.reason or "the task rejected its message")
    return Result.retry(reason=reason) if asked.requeue else Result.failure(reason=reason)


def _milliseconds(when: Any) -> int:
    """From now. Celery's `when` is seconds, or a moment; one without its zone is in UTC."""
    if isinstance(when, datetime):
        moment = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0, int((moment - datetime.now(UTC)).total_seconds() * 1000))
    return max(0, int((when or 0) * 1000))


def _output(context: Context, returned: Any) -> Mapping[str, Any]:
    """What can be kept of what it returned: a plain task has promised nothing."""
    if returned is None:
        return {}
    output = returned if isinstance(returned, dict) else {"result": returned}
    try:
        encode_data("output", output)
    except Misused as error:
        emit("work.output_dropped", task=context.work.label, work=context.id, error=error)
        return {}
    return output
