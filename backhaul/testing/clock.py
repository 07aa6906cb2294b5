"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from backhaul.errors import Misused
from backhaul.work.adjusting import moment

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class MovedClock:
    """A backhaul.clock.Clock. start: with its zone."""

    def __init__(self, start: datetime = NOON) -> None:
        self._now = moment("start", start)

    def now(self) -> int:
        return self._now

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self._now / 1000, UTC)

    def advance(self, by: timedelta) -> datetime:
        """On by so much; returns the time that it is then. Raises Misused for a way back: `set` can do that."""
        if not isinstance(by, timedelta) or by < timedelta(0):
            raise Misused(f"a clock does not advance by {by!r}", hint="clock.advance(timedelta(hours=1))")
        self._now += by // timedelta(milliseconds=1)
        return self.time

    def set(self, to: datetime) -> datetime:
        self._now = moment("to", to)
        return self.time
