"""The gate: opens and closes each queue of this worker as the machine's conditions flip.

A thread (the lookout) looks every half second and never touches Celery's consumer; what it wishes is applied by the
consumer's own loop. A closed queue is not consumed from, whatever reconnects in between; messages that were fetched
from it and have not begun are given back. What slips through the cracks is caught by the check that every task makes
before it begins.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.request import Request

from backhaul.telemetry import emit
from workers.lookout import Lookout

APPLY_SECONDS = 0.1


class Gate(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, _consumer: Consumer, **_: Any) -> None:
        self._lookout: Lookout | None = None
        self._consumed: set[str] = set()
        self._timer: Any = None

    def start(self, consumer: Consumer) -> None:
        """Before the first message of every connection."""
        lookout = self._lookout = self._lookout or self._begin(consumer)
        self._consumed = set(lookout.served)
        self._apply(consumer)
        consumer.on_task_message.add(self._turn_away)
        self._timer = consumer.timer.call_repeatedly(APPLY_SECONDS, self._apply_soon, (consumer,))

    def stop(self, _consumer: Consumer) -> None:
        """The connection is lost, or the worker ends."""
        if self._timer is not None:
            self._timer.cancel()
        if self._lookout is not None:
            self._lookout.mend_broker()

    def shutdown(self, _consumer: Consumer) -> None:
        if self._lookout is not None:
            self._lookout.end()

    def _begin(self, consumer: Consumer) -> Lookout:
        lookout = Lookout(consumer.app, name=consumer.hostname, served=list(consumer.app.amqp.queues.consume_from))
        lookout.start()
        return lookout

    def _apply_soon(self, consumer: Consumer) -> None:
        if self._open() != self._consumed:
            consumer.call_soon(self._apply, consumer)

    def _apply(self, consumer: Consumer) -> None:
        wished = self._open()
        for queue in sorted(self._consumed - wished):
            consumer.cancel_task_queue(queue)
            self._give_back(queue)
            emit("queue.closed", queue=queue, reason=self._reason(queue))
        for queue in sorted(wished - self._consumed):
            consumer.add_task_queue(queue)
            emit("queue.opened", queue=queue)
        self._consumed = wished

    def _give_back(self, queue: str) -> None:
        for request in tuple(state.reserved_requests):
            if _queue_of(request) == queue and not _begun(request):
                _return_to_queue(request)

    def _turn_away(self, request: Request) -> None:
        """A message that was on its way when its queue was closed."""
        if _queue_of(request) not in self._open():
            _return_to_queue(request)

    def _open(self) -> set[str]:
        assert self._lookout is not None
        return {name for name, queue in self._lookout.states.items() if queue.open}

    def _reason(self, queue: str) -> str:
        assert self._lookout is not None
        return self._lookout.states[queue].reason


def _queue_of(request: Request) -> str:
    return str(request.delivery_info.get("routing_key"))


def _begun(request: Request) -> bool:
    """Running, or in the pool's hands, from which it cannot be taken back: the task's own check is for that."""
    return request in state.active_requests or request.acknowledged or request._apply_result is not None


def _return_to_queue(request: Request) -> None:
    request._already_revoked = True  # or the pool would get it all the same, as soon as it has room
    request.reject(requeue=True)
    state.task_ready(request)
