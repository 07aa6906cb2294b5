"""Looking at files that may be on a file system that hangs: a mount whose server is gone answers nothing, for hours.

Looks are taken one after another in a thread, and waited for no longer than a moment. A look that does not come back
keeps its thread; another goes on with the other files. The file is looked at again once that look has come back, so a
file has one thread at most, and there are no more than a few of them.

An answer that comes too late is kept for the next look of who looks again and again (Beat), and no longer.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from backhaul.work import signatures
from backhaul.work.constraints import FileTrigger

FILE_SECONDS = 0.25  # one look; one that takes longer is asked for its answer at the next look
ALL_SECONDS = 2.0  # of all files
HANGING_SECONDS = 10.0  # a look that takes so long hangs
KEPT_SECONDS = 60.0  # an answer, for the next look: Beat may pause for twenty times as long as a look has taken
MOST_HANGING = 32  # threads


@dataclass(frozen=True, kw_only=True)
class Looks:
    """said: how the files look that have answered. hanging: of which a look has not come back for long."""

    said: dict[FileTrigger, str]
    hanging: frozenset[FileTrigger]


@dataclass(eq=False)
class _Round:
    """One thread's files. relieved: another thread goes on with what is left."""

    left: deque[FileTrigger]
    at: FileTrigger | None = None
    relieved: bool = False
    done: bool = False


@dataclass(frozen=True)
class _Answer:
    """begun, came: when the look was, by time.monotonic()."""

    said: str
    begun: float
    came: float


@dataclass(eq=False)
class Looker:
    """Keeps in mind, from look to look, what has not come back. One caller at a time."""

    look_at: Callable[[FileTrigger], str] = signatures.look
    _moved: threading.Condition = field(default_factory=threading.Condition)
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _begun: dict[FileTrigger, float] = field(default_factory=dict)
    _said: dict[FileTrigger, _Answer] = field(default_factory=dict)
    _last: dict[FileTrigger, float] = field(default_factory=dict)  # who was looked at last comes last

    def look(self, files: Iterable[FileTrigger], *, afresh: bool = False) -> Looks:
        """How these look now; of one that took its time at the last look, how it looked then. afresh: nothing from
        before this look is an answer, not even of a look that comes back meanwhile."""
        wanted = dict.fromkeys(files)
        if not wanted:
            return Looks(said={}, hanging=frozenset())
        with self._turn, self._moved:
            now = time.monotonic()
            oldest = now if afresh else now - KEPT_SECONDS
            self._said = {one: kept for one, kept in self._said.items() if one in wanted and kept.came >= oldest}
            idle = [one for one in wanted if one not in self._begun and one not in self._said]
            self._go_through(deque(sorted(idle, key=lambda one: self._last.get(one, 0.0))))
            self._last = {one: self._last[one] for one in wanted if one in self._last}
            answers = {one: self._said.pop(one) for one in wanted if one in self._said}
            said = {one: answer.said for one, answer in answers.items() if not afresh or answer.begun >= now}
            long_ago = time.monotonic() - HANGING_SECONDS
            hanging = frozenset(one for one in wanted if self._begun.get(one, long_ago) < long_ago)
            return Looks(said=said, hanging=hanging)

    def _go_through(self, left: deque[FileTrigger]) -> None:
        end = time.monotonic() + ALL_SECONDS
        while left and len(self._begun) < MOST_HANGING and time.monotonic() < end:
            taken = _Round(left)
            threading.Thread(target=self._take, args=(taken,), name="backhaul-files", daemon=True).start()
            while not taken.done and not self._hangs(taken):
                self._moved.wait(FILE_SECONDS)
                if time.monotonic() >= end:
                    break
            taken.relieved = True

    def _hangs(self, taken: _Round) -> bool:
        begun = None if taken.at is None else self._begun.get(taken.at)
        return begun is not None and time.monotonic() - begun >= FILE_SECONDS

    def _take(self, taken: _Round) -> None:
        while True:
            with self._moved:
                if taken.relieved or not taken.left:
                    taken.done = True
                    self._moved.notify_all()
                    return
                one = taken.at = taken.left.popleft()
                self._begun[one] = self._last[one] = time.monotonic()
            said = self._said_of(one)
            with self._moved:
                self._said[one] = _Answer(said, self._begun.pop(one), time.monotonic())
                self._moved.notify_all()

    def _said_of(self, one: FileTrigger) -> str:
        try:
            return self.look_at(one)
        except Exception as error:  # a thread tells nobody of it, and the file would be one that hangs
            return f"unreadable {type(error).__name__}"


_of_this_process = Looker()


def look(files: Iterable[FileTrigger]) -> Looks:
    """With the one Looker of this process."""
    return _of_this_process.look(files)


def look_afresh(files: Iterable[FileTrigger]) -> Looks:
    """The same, for who looks once."""
    return _of_this_process.look(files, afresh=True)


def look_patiently(files: Iterable[FileTrigger]) -> Looks:
    """Here and now, however long it takes: for tests, in which nothing hangs and time is not to count."""
    return Looks(said={one: signatures.look(one) for one in files}, hanging=frozenset())


def _begin_anew() -> None:
    """A child has none of its parent's threads: what they were at would hang in it for ever."""
    global _of_this_process
    _of_this_process = Looker()


os.register_at_fork(after_in_child=_begin_anew)
