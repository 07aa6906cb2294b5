"""The gate: opens and closes each queue of this worker as the machine's conditions flip.

The lookout judges, in a thread, and never touches Celery's consumer; what it wishes is applied by the consumer's own
loop, which it wakes by a pipe, or by the doorbell where there is no loop (doorbell.py), so that nothing wakes while
nothing flips. A closed queue is not consumed from, whatever reconnects in between and whoever adds it by remote
control; messages that were fetched from it and have not begun are given back. What slips through the cracks is caught
by the claim: no run begins while its queue is closed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from celery import bootsteps
from celery.signals import worker_shutting_down
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.request import Request

from backhaul.clock import iso
from backhaul.telemetry import emit
from workers.doorbell import Doorbell
from workers.lookout import Lookout

EVENT = "backhaul-gate"


class Gate(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Consumer, **_: Any) -> None:
        consumer.gate = self
        self._consumer = consumer
        self._lookout: Lookout | None = None
        self._doorbell: Doorbell | None = None
        self._pipe: tuple[int, int] | None = None
        self._applied: set[str] = set()
        self._held: list[Request] = []
        worker_shutting_down.connect(self._ending)

    def start(self, consumer: Consumer) -> None:
        """Before the first message of every connection."""
        lookout = self._lookout = self._lookout or self._begin(consumer)
        self._held.clear()  # the broker has them back
        self._listen(consumer)
        self._apply(beginning=True)
        self._announce()
        consumer.on_task_message.add(self._turn_away)
        lookout.judged, lookout.consuming = self._follow, True
        self._follow()  # for what has flipped since the queues were judged

    def stop(self, consumer: Consumer) -> None:
        """The connection is lost, or the worker ends."""
        if self._pipe is not None:
            consumer.hub.remove(self._pipe[0])
        if self._doorbell is not None:
            self._doorbell.take_down(last_ring=consumer.blueprint.state != bootsteps.RUN)
        if self._lookout is not None:
            self._lookout.judged, self._lookout.consuming = lambda: None, False
            self._lookout.mend_broker()

    def shutdown(self, _consumer: Consumer) -> None:
        if self._doorbell is not None:
            self._doorbell.end()
        if self._lookout is not None:
            self._lookout.end()

    def info(self, _consumer: Consumer) -> dict[str, Any]:
        """For `celery inspect stats`, which is what Flower's page of a worker shows."""
        queues = self._lookout.states.values() if self._lookout is not None else ()
        return {"gate": {queue.name: "open" if queue.open else f"closed: {queue.reason}" for queue in queues}}

    def shown(self) -> dict[str, Any]:
        assert self._lookout is not None
        return {
            "queues": self._queues_shown(),
            "consumed": sorted(self._consumed()),
            "seconds": self._lookout.seconds,
        }

    # what the lookout's thread calls

    def _follow(self) -> None:
        """Whenever it has judged: what was not applied, for whatever reason, is tried again a second later."""
        if self._open() == self._applied:
            return
        if self._pipe is not None:
            self._wake()
        elif self._doorbell is not None:
            self._consumer.call_soon(self._apply)
            self._doorbell.ring()

    # what the consumer's loop calls

    def call_away(self) -> None:
        """What waits for the broker still names the queues of before."""
        if self._doorbell is not None:
            self._doorbell.ring()

    def _ending(self, **_: Any) -> None:
        """In the signal's handler, whatever the loop is doing: it goes on sleeping after a signal."""
        self._wake()

    def _wake(self) -> None:
        if self._pipe is not None:
            with suppress(BlockingIOError):
                os.write(self._pipe[1], b".")

    def _begin(self, consumer: Consumer) -> Lookout:
        lookout = Lookout(
            consumer.app,
            name=consumer.hostname,
            served=list(consumer.app.amqp.queues.consume_from),
            concurrency=consumer.controller.concurrency,
            processes=lambda: _processes(consumer),
        )
        lookout.start()
        self._applied = set(lookout.served)
        return lookout

    def _listen(self, consumer: Consumer) -> None:
        if consumer.hub is not None:
            self._pipe = self._pipe or _opened()
            consumer.hub.add_reader(self._pipe[0], self._woken)
        redis = consumer.connection.transport.driver_type == "redis"
        if consumer.hub is None or redis:
            # On Redis a channel with all its places taken waits for nothing, and hears nothing: another one does.
            another = [consumer.connection.channel()] if consumer.hub is None and redis else []
            self._doorbell = self._doorbell or Doorbell(consumer.app)
            self._doorbell.hang(consumer.task_consumer.channel, *another)

    def _woken(self) -> None:
        assert self._pipe is not None
        with suppress(BlockingIOError):
            os.read(self._pipe[0], 4096)
        if self._open() != self._applied:
            self._consumer.call_soon(self._apply)

    def _apply(self, *, beginning: bool = False) -> None:
        """Let go of what is closed, whoever has added it, and take up what has opened. A queue that is open, and that
        an operator has cancelled by remote control, is left alone until it flips.

        beginning: of a connection; Celery consumes when all is ready.
        """
        open_, before = self._open(), set(self._applied)
        # Noted first: a connection that is lost in the middle has let go all the same, and the queue may have opened
        # again before the next one.
        self._applied &= open_
        for queue in sorted(self._consumed() - open_):
            self._consumer.cancel_task_queue(queue)
        self._give_back(open_)
        for queue in sorted(open_ - self._applied):
            if beginning:
                queues = self._consumer.app.amqp.queues
                self._consumer.task_consumer.add_queue(queues.select_add(queues[queue]))
            elif queue not in self._consumed():
                self._consumer.add_task_queue(queue)
            self._applied.add(queue)
        if self._applied != before:
            self._tell(before)

    def _tell(self, before: set[str]) -> None:
        assert self._lookout is not None
        for queue in sorted(before - self._applied):
            emit("queue.closed", queue=queue, reason=self._lookout.states[queue].reason)
        for queue in sorted(self._applied - before):
            emit("queue.opened", queue=queue)
        self._announce()

    def _announce(self) -> None:
        """To whoever listens to Celery's events."""
        dispatcher = self._consumer.event_dispatcher
        if dispatcher is not None and dispatcher.enabled:
            dispatcher.send(EVENT, queues=self._queues_shown())

    def _give_back(self, open_: set[str]) -> None:
        """Only after the queue was let go of, or the broker would send the same messages again at once."""
        held, self._held = self._held, []
        reserved = [one for one in tuple(state.reserved_requests) if _queue_of(one) not in open_ and one not in held]
        for request in [*held, *(one for one in reserved if not self._begun(one))]:
            request._already_revoked = True  # or the pool would get it all the same, as soon as it has room
            request.reject(requeue=True)
            state.task_ready(request)

    def _turn_away(self, request: Request) -> None:
        """A message that was on its way when its queue was closed: kept from the pool, and given back in a moment."""
        if _queue_of(request) not in self._open():
            request._already_revoked = True
            self._held.append(request)
            self._consumer.call_soon(self._apply)

    def _begun(self, request: Request) -> bool:
        """Running, or in the hands of a child. A pool of threads has taken it up long before it begins; when it does,
        it finds that its queue is closed."""
        if request.acknowledged or request in state.active_requests:
            return True
        return self._consumer.pool.uses_semaphore and request._apply_result is not None

    def _consumed(self) -> set[str]:
        return {queue.name for queue in self._consumer.task_consumer.queues}

    def _open(self) -> set[str]:
        assert self._lookout is not None
        return {name for name, queue in self._lookout.states.items() if queue.open}

    def _queues_shown(self) -> list[dict[str, Any]]:
        assert self._lookout is not None
        return [
            {"name": queue.name, "open": queue.open, "reason": queue.reason, "since": iso(queue.since)}
            for queue in self._lookout.states.values()
        ]


def _processes(consumer: Consumer) -> list[int] | None:
    """The pids of the pool; None where it has no processes, or does not say."""
    pids = None
    with suppress(AttributeError):  # it is not there yet, or no more
        pids = consumer.pool.info.get("processes")
    return None if pids is None else [pid for pid in pids if pid is not None]


def _opened() -> tuple[int, int]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    return read, write


def _queue_of(request: Request) -> str:
    return str(request.delivery_info.get("routing_key"))
