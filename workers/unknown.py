"""A message for a task that this worker has not: a function of a module that it does not import, or one that is gone.

WorkManager fails such work, and so does this: it would fail on every worker, or on some, by chance. Celery has dropped
the message and told Flower so; here the row is told, and those that wait for it.
"""

from __future__ import annotations

from typing import Any

from celery.worker.consumer import Consumer

from backhaul.clock import SystemClock
from backhaul.errors import BackhaulError
from backhaul.telemetry import emit
from backhaul.work.run import Settled, run
from config.machine import conditions_of
from tasks.base import LEASE_MS
from tasks.functions import call_function
from workers.replica import replica_of


def fail_unknown(sender: Consumer, message: Any = None, **_: Any) -> None:
    """For Celery's signal `task_unknown`."""
    named = _named(message)
    if named is None:
        return
    try:
        _settle(sender, *named, queue=str(message.delivery_info.get("routing_key")))
    except BackhaulError as error:  # Beat rings again
        emit("bell.failed", error=type(error).__name__)


def _named(message: Any) -> tuple[str, int] | None:
    """The work and the generation, if it is a message of ours."""
    try:
        (work_id, generation), _, _ = message.decode()
    except Exception:  # whatever it is, it is not ours
        return None
    return (work_id, generation) if isinstance(work_id, str) and isinstance(generation, int) else None


def _settle(consumer: Consumer, work_id: str, generation: int, *, queue: str) -> Settled:
    replica = replica_of(consumer.app)
    with replica.database.using() as database:
        return run(
            database,
            work_id,
            generation,
            worker=str(consumer.hostname),
            queue=queue,
            conditions=conditions_of(replica.settings, worker_name=str(consumer.hostname)),
            clock=SystemClock(),
            body=call_function,  # it raises WorkerUnknown, with what to do
            lease_ms=LEASE_MS,
        )
