"""The doorbell: a queue of the worker's own, by which it calls its consumer away from waiting for the broker.

A consumer that blocks on the broker hears of nothing else: without an event loop (gevent) it sits in `drain_events` for
two seconds, and on Redis the BRPOP that is under way still names the queues of before until it is over, and a channel
that is closed waits for it. A message in a queue that it consumes as well ends either at once. It means nothing more.

So on Redis the waiting can be longer than the second of the transport, which would be one waking a second for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from uuid import uuid4

from celery import Celery
from kombu.entity import Queue
from kombu.messaging import Consumer

from config.queues import DIRECT
from workers.errand import Errand

BRPOP_SECONDS = 15  # the transport has its own eye on a connection that says nothing for half a minute more
WAIT_SECONDS = 1.0  # for a connection to ring by
EXPIRES_SECONDS = 60.0  # a message that nobody came for


class Doorbell:
    def __init__(self, app: Celery) -> None:
        self._app = app
        self._hanging: dict[str, Any] = {}
        self._leaving: dict[str, Any] = {}
        self._ringing = Errand("doorbell", lambda: self._ring(tuple(self._hanging)))

    def hang(self, *channels: Any) -> None:
        """By the channels that the consumer waits on; anew for each connection."""
        hanging = {}
        for channel in channels:
            name = f"backhaul.gate.{uuid4().hex}"  # the broker may not yet have heard that the last one is gone
            options = {"exclusive": True, "auto_delete": True, "durable": False, "expires": EXPIRES_SECONDS}
            queue = Queue(name, exchange=DIRECT, routing_key=name, **options)  # type: ignore[no-untyped-call]
            consumer = Consumer(channel, queues=[queue], on_message=self._heard, no_ack=True)  # type: ignore[no-untyped-call]
            consumer.consume()  # type: ignore[no-untyped-call]
            hanging[name] = consumer
            if hasattr(channel, "brpop_timeout"):
                channel.brpop_timeout = BRPOP_SECONDS
        self._hanging = hanging

    def take_down(self, *, last_ring: bool = False) -> None:
        """last_ring: the channels are about to be closed, and answer."""
        hanging, self._hanging = self._hanging, {}
        if last_ring and hanging:
            self._leaving = hanging
            with suppress(Exception):  # then closing waits until the socket's patience is over
                return self._ring(tuple(hanging))
        for consumer in hanging.values():
            with suppress(Exception):  # whatever a connection that is lost has to say
                consumer.cancel()
        return None

    def ring(self) -> None:
        """From any thread, and never blocking."""
        if self._hanging:
            self._ringing.ask()

    def end(self) -> None:
        self._ringing.end(1)

    def _heard(self, message: Any) -> None:
        """Whoever leaves has heard all there is to hear. (Not before: the transport warns of what nobody consumes.)"""
        consumer = self._leaving.pop(message.delivery_info["routing_key"], None)
        if consumer is not None:
            consumer.cancel()

    def _ring(self, names: Iterable[str]) -> None:
        with self._app.pool.acquire(block=True, timeout=WAIT_SECONDS) as connection:
            producer = connection.Producer()
            for name in names:
                producer.publish("", routing_key=name, serializer="json", delivery_mode=1, retry=False)
