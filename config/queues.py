"""The declared queues, for the library and for Celery."""

from __future__ import annotations

from kombu.entity import Exchange, Queue

from backhaul import bell
from config.settings import Settings

# The broker's default exchange: it has no bindings that a FLUSHALL could take away.
DIRECT = Exchange("", type="direct")  # type: ignore[no-untyped-call]


def declared(settings: Settings) -> list[bell.Queue]:
    return [
        bell.Queue(name=name, tags=frozenset(queue.tags) | frozenset(queue.labels))
        for name, queue in settings.queues.items()
    ]


def celery_queues(settings: Settings) -> list[Queue]:
    return [Queue(name, exchange=DIRECT, routing_key=name) for name in settings.queues]  # type: ignore[no-untyped-call]
