"""Damping: a condition that keeps flipping is believed less and less, until it stands still.

"no" is always believed at once, and so is whatever comes after the first "no". But each further loss of a "yes" that
had stood for less than a minute makes the next one wait: it must hold without a break for the steady time after the
second loss (2 s, unless set otherwise), for twice as long after the third, and so on, up to a minute. A "yes" or a "no"
that has stood for a minute makes all of that forgotten: a link that is there for less than a minute in each hour does
not flap. "unknown" after a "no" waits like a "yes", for most of what is not known counts as one; between "yes" and
"unknown" nothing waits.
"""

from __future__ import annotations

from backhaul.work.reading import Answer

MOST_HOLD_MS = 60_000
FORGOTTEN_MS = 60_000


class Damping:
    """Of one condition. since: when the answer in force became that. Milliseconds."""

    def __init__(self, steady_ms: int) -> None:
        self.answer: Answer = "unknown"
        self.since = 0
        self._steady_ms = steady_ms
        self._losses = 0
        self._believed_at = 0  # when it was last believed to be no "no" any more
        self._gone_at: int | None = None  # since when "no" is said without a break
        self._returned_at: int | None = None  # since when it is none without a break, and not believed yet

    def next(self, said: Answer, now: int) -> Answer:
        """The answer in force, after what was said now."""
        if said == "no":
            self._returned_at = None
            self._gone_at = now if self._gone_at is None else self._gone_at
            if self.answer != "no":
                self._losses = 1 if _stood(self._believed_at, now) else self._losses + 1
                self._become("no", now)
            return self.answer
        if self._gone_at is not None and _stood(self._gone_at, now):
            self._losses = 1
        self._gone_at = None
        if self.answer != "no":
            self._become(said, now)
        elif self.left_ms(now):
            self._returned_at = now if self._returned_at is None else self._returned_at
        else:
            self._returned_at, self._believed_at = None, now
            self._become(said, now)
        return self.answer

    def left_ms(self, now: int) -> int:
        """How long it must still hold without a break, if it does from now on, before it is believed."""
        if self._losses < 2:
            return 0
        hold = min(MOST_HOLD_MS, self._steady_ms << min(self._losses - 2, 16))
        begun = now if self._returned_at is None else min(self._returned_at, now)
        return max(0, begun + hold - now)

    def _become(self, answer: Answer, now: int) -> None:
        if answer != self.answer or not self.since:
            self.answer, self.since = answer, now


def _stood(since: int, now: int) -> bool:
    return not 0 <= now - since < FORGOTTEN_MS
