"""The thread that looks after one run: it sees the stop for a function that does not look, and keeps the lease.

A function may be silent for long (a server that takes a minute to answer, a computation); its work must not be taken
for lost, and it must be able to hear of a stop by `stopped` or `wait` alone. A process that dies renews nothing, and
its work waits again within seconds.

To start a thread, and to wait for its end, costs a fifth of what a run costs that does nothing. So a thread whose run
has ended is the next run's, and ends when no run has come for a while.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backhaul.telemetry import emit
from backhaul.work.context import Context

LOOK_SECONDS = 0.5
LOOKS_UNUSED = 4  # that a thread stays without a run


@contextmanager
def watched(context: Context, *, grace_ms: int, give_up: Callable[[Context], None]) -> Iterator[None]:
    """give_up: is called, once, when the function has gone on for so long after it was asked to stop."""
    try:
        watcher = _unused.pop()
    except IndexError:
        watcher = _Watcher()
    watcher.begin(_Watch(context, grace_ms, give_up))
    context.watched = True
    try:
        yield
    finally:
        watcher.end()  # a look that has begun is over then
        context.watched = False
        _unused.append(watcher)


class _Watch:
    def __init__(self, context: Context, grace_ms: int, give_up: Callable[[Context], None]) -> None:
        self._context, self._grace_ms, self._give_up = context, grace_ms, give_up
        self._asked_at: int | None = None
        self._given_up = False

    def look(self) -> None:
        context = self._context
        try:
            context.look()
        except Exception as error:  # a database that cannot be read at all: the lease will tell
            emit("work.unwatched", task=context.work.label, work=context.id, error=type(error).__name__)
        if context.stopped and self._asked_at is None:
            self._asked_at = context.elapsed
        if self._asked_at is not None and not self._given_up and context.elapsed - self._asked_at >= self._grace_ms:
            self._given_up = True
            self._give_up(context)


class _Watcher:
    """A thread that looks after one run at a time."""

    def __init__(self) -> None:
        self._watch: _Watch | None = None
        self._looking = threading.Lock()
        threading.Thread(target=self._live, name="backhaul-watch", daemon=True).start()

    def begin(self, watch: _Watch) -> None:
        with self._looking:
            self._watch = watch

    def end(self) -> None:
        with self._looking:
            self._watch = None

    def _live(self) -> None:
        unused = 0
        while unused < LOOKS_UNUSED or not self._left():
            time.sleep(LOOK_SECONDS)
            with self._looking:
                unused = unused + 1 if self._watch is None else 0
                if self._watch is not None:
                    self._watch.look()

    def _left(self) -> bool:
        """Whether no run can take this one any more: it ends then."""
        try:
            _unused.remove(self)
        except ValueError:  # a run has just taken it
            return False
        return True


_unused: deque[_Watcher] = deque()  # a step of a deque is whole: a run and the thread's end never have the same one
os.register_at_fork(after_in_child=_unused.clear)  # a child has none of the threads
