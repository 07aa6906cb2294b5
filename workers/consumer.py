"""Celery's consumer, where the connection is lost in the middle of something; and at the pace of a machine that has
nothing to do: what it does again and again, each for a reason of its own, would wake an idle worker three times a
second.

Nothing that is heard waits for it: messages, remote control, the gate's pipe and what the pool has done come by
descriptors that the loop sleeps on. Where the transport's waiting is longer than it was, the doorbell ends it
(doorbell.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.connection import Connection

HEARTBEAT_SECONDS = 15.0  # of Celery's event; who draws it (Flower) is told how often to expect it
LEAST_SECONDS = 30.0  # between two turns of what the Redis transport does again and again: its own looks at connections


class Consumer(CeleryConsumer):  # type: ignore[misc]  # Celery ships no types
    def __init__(self, *arguments: Any, worker_options: Mapping[str, Any] | None = None, **options: Any) -> None:
        said = dict(worker_options or {})
        super().__init__(*arguments, worker_options=said | _pace(said), **options)

    def connect(self) -> Connection:
        """As Celery's, but for the loop that a transport on Redis is shown."""
        connection: Connection = self.connection_for_read(heartbeat=self.amqheartbeat)
        if self.hub is not None:
            redis = connection.transport.driver_type == "redis"
            loop = Unhurried(self.hub, LEAST_SECONDS) if redis else self.hub
            connection.transport.register_with_event_loop(connection.connection, loop)
        return connection

    def perform_pending_operations(self) -> None:
        """Celery logs what one of them raised, and listens on. For that kombu connects anew where the connection was
        lost, without the channel that consumes: the worker would hear nothing for ever. Raises ConnectionResetError,
        upon which the consumer begins again. (Where there is an event loop, it does so by itself.)"""
        super().perform_pending_operations()
        if self.hub is None and not self.connection.connected:
            raise ConnectionResetError("the connection to the broker was lost")

    def add_task_queue(self, *arguments: Any, **options: Any) -> None:
        """Also for remote control, which the gate does not hear of."""
        super().add_task_queue(*arguments, **options)
        self.gate.call_away()

    def cancel_task_queue(self, *arguments: Any, **options: Any) -> None:
        super().cancel_task_queue(*arguments, **options)
        self.gate.call_away()


class Unhurried:
    """A loop whose timers that repeat do so no more often than that."""

    def __init__(self, loop: Any, least_seconds: float) -> None:
        self._loop = loop
        self._least_seconds = least_seconds

    def call_repeatedly(self, seconds: float, call: Callable[..., Any], *arguments: Any) -> Any:
        return self._loop.call_repeatedly(max(seconds, self._least_seconds), call, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


def _pace(said: Mapping[str, Any]) -> dict[str, Any]:
    """Gossip is for elections, which nothing here holds; it has each worker hear each other's heartbeat."""
    return {"without_gossip": True, "heartbeat_interval": said.get("heartbeat_interval") or HEARTBEAT_SECONDS}
