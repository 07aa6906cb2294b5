"""One-time work, as a host asks for it."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Literal

from backhaul.errors import Misused
from backhaul.work.adjusting import milliseconds, moment
from backhaul.work.host_work import HostWork
from backhaul.work.request import WorkRequest

OutOfQuota = Literal["run_as_ordinary", "drop"]
NOT_EXPEDITED = ("charging", "battery_not_low", "device_idle")  # what WorkManager refuses with expedited work, too


@dataclass(frozen=True)
class OneTimeWork(HostWork):
    """Work that runs until it has succeeded, failed or been cancelled. Raises Misused at build; warns (WorkAdjusted)
    where a value is raised to its minimum.

    worker: a function with `@worker`, or its name. input: a JSON object of at most 10 KiB. tags: to find and cancel it
    by; the function's name is one of them anyway. initial_delay: from when it is enqueued, or, in a chain, from when
    what it waits for has succeeded. begin_at: no sooner than this moment. backoff: before a retry; exponential from
    30 s by default. max_attempts: after so many tries a retry is a failure; no limit by default. expires_after:
    cancelled unless it has begun by then, from when it is enqueued; beside a begin_at that is later, it is refused
    then. expedited: before other work, on its first try; says what becomes of it when the quota (`[work]
    expedited_runs`, an hour) is used up. merger: how the outputs of what it waits for become its input (see
    mergers.py). backoff_on_stop: a stop counts like a retry. plain_task: the worker is a plain Celery task (see
    `of_task`). id: a fresh one when none is given.
    """

    _: KW_ONLY
    begin_at: datetime | None = None
    expires_after: timedelta | None = None
    expedited: OutOfQuota | None = None
    merger: str = "overwriting"

    @cached_property
    def request(self) -> WorkRequest:
        """As the ledger is told."""
        self._check_expedited()
        return WorkRequest(
            **self._terms(),
            begin_at=None if self.begin_at is None else moment("begin_at", self.begin_at),
            expires_after_ms=None if self.expires_after is None else milliseconds("expires_after", self.expires_after),
            expedited=self.expedited,
            merger=self.merger,
        )

    def _check_expedited(self) -> None:
        if self.expedited is None:
            return
        if self.expedited not in ("run_as_ordinary", "drop"):
            raise Misused(f"expedited is {self.expedited!r}", hint='"run_as_ordinary" or "drop"')
        if self.initial_delay or self.begin_at is not None:
            raise Misused("expedited work cannot be delayed", hint="leave initial_delay and begin_at out")
        refused = sorted(self.constraints.tags.intersection(NOT_EXPEDITED))
        refused += ["triggers"] if self.constraints.triggers else []
        if refused:
            raise Misused(
                f"expedited work cannot wait for {', '.join(refused)}",
                hint="only a network, storage_not_low and labels go with it",
            )
