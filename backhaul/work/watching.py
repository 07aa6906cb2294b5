"""The thread that looks after one run: it sees the stop for a function that does not look, and keeps the lease.

A function may be silent for long (a server that takes a minute to answer, a computation); its work must not be taken
for lost, and it must be able to hear of a stop by `stopped` or `wait` alone. A process that dies renews nothing, and
its work waits again within seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backhaul.telemetry import emit
from backhaul.work.context import Context

LOOK_SECONDS = 0.5


@contextmanager
def watched(context: Context, *, grace_ms: int, give_up: Callable[[Context], None]) -> Iterator[None]:
    """give_up: is called, once, when the function has gone on for so long after it was asked to stop."""
    ended = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(ended, context, grace_ms, give_up), name=f"backhaul-watch-{context.id}", daemon=True
    )
    context.watched = True
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        context.watched = False


def _watch(ended: threading.Event, context: Context, grace_ms: int, give_up: Callable[[Context], None]) -> None:
    asked_at: int | None = None
    given_up = False
    while not ended.wait(LOOK_SECONDS):
        try:
            context.look()
        except Exception as error:  # a database that cannot be read at all: the lease will tell
            emit("work.unwatched", task=context.work.label, work=context.id, error=type(error).__name__)
        if context.stopped and asked_at is None:
            asked_at = context.elapsed
        if asked_at is not None and not given_up and context.elapsed - asked_at >= grace_ms:
            given_up = True
            give_up(context)
