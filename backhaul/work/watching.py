"""The thread that looks after one run: it sees the stop for a function that does not look, and keeps the lease.

A function may be silent for long (a server that takes a minute to answer, a computation); its work must not be taken
for lost, and it must be able to hear of a stop by `stopped` or `wait` alone. A process that dies renews nothing, and
its work waits again within seconds.

To start a thread, and to wait for its end, costs a tenth of what a run costs that does nothing. So a thread whose run
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
    context.watched = True
    try:
        watcher.begin(_Watch(context, grace_ms, give_up))
        yield
    finally:
        watcher.end()
        context.watched = False
        if watcher.lives:
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
            self._see_whether_it_stops(context)
        except Exception as error:  # a database that cannot be read or written at all: the lease will tell
            emit("work.unwatched", task=context.work.label, work=context.id, error=type(error).__name__)

    def _see_whether_it_stops(self, context: Context) -> None:
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
        self._process, self._ended = os.getpid(), False
        threading.Thread(target=self._live, name="backhaul-watch", daemon=True).start()

    def begin(self, watch: _Watch) -> None:
        with self._looking:
            self._watch = watch

    @property
    def lives(self) -> bool:
        """Not in a child that the run itself has forked: that has none of our threads."""
        return not self._ended and self._process == os.getpid()

    def end(self) -> None:
        """A look that has begun is over then."""
        self._watch = None  # first of all: whatever may interrupt the waiting, this run is looked after no more
        if self.lives:
            with self._looking:
                pass

    def _live(self) -> None:
        try:
            unused = 0
            while unused < LOOKS_UNUSED or not self._left():
                time.sleep(LOOK_SECONDS)
                with self._looking:
                    watch = self._watch
                    unused = unused + 1 if watch is None else 0
                    if watch is not None:
                        watch.look()
        finally:
            self._ended = True

    def _left(self) -> bool:
        """Whether no run can take this one any more: it ends then."""
        try:
            _unused.remove(self)
        except ValueError:  # a run has just taken it
            return False
        return True


_unused: deque[_Watcher] = deque()  # a step of a deque is whole: a run and the thread's end never have the same one
os.register_at_fork(after_in_child=_unused.clear)  # a child has none of the threads
