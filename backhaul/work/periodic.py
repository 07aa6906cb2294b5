"""Periodic work, as a host asks for it: it runs again and again until it is cancelled."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from functools import cached_property

from backhaul.errors import Misused
from backhaul.work.adjusting import LONGEST_MS, milliseconds, moment, raised
from backhaul.work.host_work import HostWork
from backhaul.work.request import WorkRequest

LEAST_INTERVAL = timedelta(minutes=15)
LEAST_FLEX = timedelta(minutes=5)


@dataclass(frozen=True)
class PeriodicWork(HostWork):
    """Work that runs once in each interval. Raises Misused at build; warns (WorkAdjusted) where a value is raised.

    every: the interval, at least 15 minutes; it counts from the end of a run, so a late or long run shifts those after
    it. flex: the part at the end of the first interval in which the first run may start, between 5 minutes and the
    interval; without it the first run is due at once. (As in WorkManager, it moves the first run alone.)
    next_run_at: an absolute moment for the next run, in place of interval, flex, delay and backoff; a later run is not
    due before 15 minutes after the one before it. least_interval: for those who know why they need less than 15
    minutes (a test, a fleet in one building); flex may then be as short. expedited: is refused, as in WorkManager. The
    rest: as in OneTimeWork.

    Success and failure both end a period; the output of a period is not kept.
    """

    _: KW_ONLY
    every: timedelta
    flex: timedelta | None = None
    next_run_at: datetime | None = None
    least_interval: timedelta = LEAST_INTERVAL
    expedited: None = None

    @cached_property
    def request(self) -> WorkRequest:
        """As the ledger is told."""
        if self.expedited is not None:
            raise Misused("periodic work cannot be expedited", hint="only one-time work can: OneTimeWork")
        least = max(1, milliseconds("least_interval", self.least_interval))
        least_flex = min(milliseconds("flex", LEAST_FLEX), least)
        interval = raised("every", milliseconds("every", self.every), least, LONGEST_MS)
        return WorkRequest(
            **self._terms(),
            interval_ms=interval,
            flex_ms=0 if self.flex is None else raised("flex", milliseconds("flex", self.flex), least_flex, interval),
            override_at=None if self.next_run_at is None else moment("next_run_at", self.next_run_at),
        )
