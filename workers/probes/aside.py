"""A look that may hang (a dead file system, a name that does not resolve) is made in a thread of its own.

Whoever wants to know never waits: he sees what was found last, and nothing while a look is overdue. There is one such
thread at a time; one that hangs is left alone until it comes back. Where gevent has made Python's threads its own, all
of which hang with any one that the kernel holds, it is a thread of the system all the same.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from backhaul.clock import Clock

PATIENCE_SECONDS = 0.5

Finding = TypeVar("Finding")


class Aside(Generic[Finding]):
    """look: returns what it found, or None. done: called after each look, in that thread, or in gevent's. patience:
    seconds. by_socket: the look waits for sockets and names alone, which gevent sees to by itself."""

    def __init__(
        self,
        look: Callable[[], Finding | None],
        *,
        clock: Clock,
        done: Callable[[], None],
        name: str,
        patience: float = PATIENCE_SECONDS,
        by_socket: bool = False,
    ) -> None:
        self.looks = 0  # that have ended
        self.read_at = 0
        self._begun_at = 0
        self._look = look if by_socket else lambda: _really_aside(look)
        self._clock = clock
        self._done = done
        self._name = name
        self._patience = patience
        self._found: Finding | None = None
        self._begun: float | None = None  # monotonic: a duration of ours, not a time of the world

    @property
    def running(self) -> bool:
        return self._begun is not None

    @property
    def overdue(self) -> bool:
        begun = self._begun
        return begun is not None and time.monotonic() - begun > self._patience

    @property
    def settled(self) -> bool:
        return self.looks > 0 or self.overdue

    @property
    def found(self) -> Finding | None:
        return None if self.overdue else self._found

    def begin_if_due(self, now: int, every_ms: int) -> bool:
        """A clock that was set back makes it due; one that another thread has read a little later does not."""
        return abs(now - self._begun_at) >= every_ms and self.begin(now)

    def begin(self, now: int) -> bool:
        """Whether a look begins; not while the last one goes on, nor where the system gives no thread."""
        if self._begun is not None:
            return False
        self._begun, self._begun_at = time.monotonic(), now
        try:
            threading.Thread(target=self._run, name=f"backhaul-look-{self._name}", daemon=True).start()
        except RuntimeError:
            self._found, self._begun = None, None
            return False
        return True

    def _run(self) -> None:
        try:
            found = self._look()
        except Exception:  # whatever a machine's files hold: it is not known, then
            found = None
        self._end(found)
        self._done()

    def _end(self, found: Finding | None) -> None:
        self._found = found
        self.read_at = self._clock.now()
        self._begun = None
        self.looks += 1


def _really_aside(look: Callable[[], Finding | None]) -> Finding | None:
    if "gevent.monkey" not in sys.modules:
        return look()
    from gevent import monkey
    from gevent.threadpool import ThreadPool

    if not monkey.is_module_patched("threading"):
        return look()
    pool = ThreadPool(1)
    try:
        found: Finding | None = pool.apply(look)
        return found
    finally:
        pool.kill()
