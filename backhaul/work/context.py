"""What the function of a run is given: its input, a place for its progress and its checkpoint, and word when to stop.

A run is asked to stop by its row (cancelled, drained, its lease lost), by its constraints and those of its queue, by
the clock and by the end of its worker. Looking costs a read, twice a second at the most; a write only for the lease,
for progress and for a checkpoint. A worker's runs are looked after by a thread (watching.py), so that a function that
waits, or is busy for long, can see `stopped` all the same; one that runs without it looks when it calls `check` or
`wait`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import DatabaseBusy, Stopped
from backhaul.work import ledger
from backhaul.work.conditions import Condition
from backhaul.work.data import encode_data
from backhaul.work.ledger import Work
from backhaul.work.placing import judge

CHECK_EVERY_MS = 500
RENEW_EVERY_MS = 5_000

Conditions = Callable[[Connection, int], tuple[Mapping[str, Condition], frozenset[str]]]


class Context:
    """input: the work's own, and the outputs of what it waited for, merged. work: the row as it was claimed.
    queue_tags: of the queue that it came by; they must hold as well as what the work requires."""

    def __init__(
        self,
        database: Database,
        work: Work,
        *,
        queue_tags: frozenset[str] = frozenset(),
        conditions: Conditions,
        clock: Clock,
        lease_ms: int,
        most_ms: int,
        ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self.work = work
        self.database = database
        self.clock = clock
        self.input = work.input
        self.stop: Stopped | None = None  # as run.py needs it; a function reads `stopped` and `stop_reason`
        self.watched = False
        self._demanded = queue_tags.union(work.requires)
        self._conditions = conditions
        self._ending = ending
        self._lease_ms = lease_ms
        self._most_ms = most_ms
        self._progress: dict[str, Any] | None = None
        self._checkpoint = work.checkpoint
        self._began = self._looked = self._renewed = clock.now()
        self._looking = threading.Lock()
        self._asked = threading.Event()

    @property
    def id(self) -> str:
        return self.work.id

    @property
    def tags(self) -> frozenset[str]:
        """Those that it was enqueued with, and the name of its function."""
        return frozenset((*self.work.tags, self.work.label))

    @property
    def attempt(self) -> int:
        """How often it was begun before: 0 on the first try. Stops and crashes count, too."""
        return self.work.attempt - 1

    @property
    def is_last_attempt(self) -> bool:
        """Whether asking for another try would be a failure: `max_attempts` is reached."""
        return ledger.is_last_attempt(self.work)

    @property
    def triggered(self) -> tuple[str, ...]:
        """The tables and paths that have changed; empty for work without triggers."""
        return self.work.triggered

    @property
    def elapsed(self) -> int:
        """Milliseconds since the run began."""
        return self.clock.now() - self._began

    # what it keeps

    @property
    def checkpointed(self) -> dict[str, Any] | None:
        """What the last checkpoint kept, in this run or in one before it."""
        return self._checkpoint

    def checkpoint(self, value: Mapping[str, Any] | None) -> None:
        """Keep this for the next run: a JSON object of at most 10 KiB; None: nothing. It is on disk when this
        returns, survives stops and crashes, and is forgotten when the work is done, or its period. It may be called
        after a stop.

        Raises Misused; Stopped when the work is no longer this run's; DatabaseBusy.
        """
        if value is not None:
            encode_data("checkpoint", value)
        with self.database.writing() as connection:
            ledger.keep_checkpoint(connection, self.work, value)
        self._checkpoint = None if value is None else dict(value)

    def progress(self, value: Mapping[str, Any]) -> None:
        """Say how far it is: a JSON object of at most 10 KiB, kept within a second. Only the last one counts.

        Raises Misused, and Stopped as `check` does.
        """
        encode_data("progress", value)
        self._progress = dict(value)
        self.check()

    def keep_progress(self, connection: Connection) -> None:
        """What was said last, before the run is stopped; it is kept here too, for the transaction may fail."""
        said = self._progress
        if said is not None:
            self._renew(connection, self.clock.now())
            self._progress = said

    # whether it should stop

    @property
    def stopped(self) -> bool:
        """Whether it should stop. What the function returns after that is ignored."""
        return self.stop is not None

    @property
    def stop_reason(self) -> str | None:
        """CANCELLED_BY_APP, TIMEOUT, CONSTRAINT_..., DEVICE_STATE, USER, QUOTA, DEPLOY_DRAIN, LEASE_EXPIRED.

        None: go on.
        """
        return None if self.stop is None else self.stop.reason

    def wait(self, seconds: float) -> bool:
        """Sleep for so long, or until the run should stop; whether it should."""
        end = time.monotonic() + seconds
        while self.stop is None:
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._asked.wait(left if self.watched else min(left, CHECK_EVERY_MS / 1000))
            if not self.watched:
                self.look()
        return True

    def check(self, *, force: bool = False) -> None:
        """Go on, or raise Stopped. Cheap: it looks into the database at most every half second, unless forced."""
        if self.stop is None and (force or not 0 <= self.clock.now() - self._looked < CHECK_EVERY_MS):
            self.look()
        if self.stop is not None:
            raise self.stop

    def look(self) -> None:
        """See whether the run should stop, and renew its lease in time, also while it stops. Raises nothing of ours."""
        with self._looking:
            reason = self._found(self.clock.now())
            if reason and self.stop is None:
                self.stop = Stopped(reason)
                self._asked.set()

    def _found(self, now: int) -> str | None:
        self._looked = now
        renewing = self._progress is not None or not 0 <= now - self._renewed < RENEW_EVERY_MS  # or the clock was set
        try:
            with self.database.writing(lasting=False) if renewing else self.database.reading() as connection:
                asked = self._renew(connection, now) if renewing else ledger.asked_to_stop(connection, self.work)
                lost = self._constraint_lost(connection, now)
        except DatabaseBusy:  # the app has it; as long as the lease is good, so is what was found half a second ago
            asked, lost = ("LEASE_EXPIRED" if now >= self._renewed + self._lease_ms else None), None
        except Stopped as stopped:
            return stopped.reason
        drain = "DEPLOY_DRAIN" if self._ending() else None
        timeout = "TIMEOUT" if now - self._began >= self._most_ms else None
        return asked or drain or lost or timeout

    def _renew(self, connection: Connection, now: int) -> str | None:
        said, self._progress = self._progress, None
        stopping = self.stop_reason
        try:
            asked = ledger.renew(
                connection, self.work, now=now, lease_ms=self._lease_ms, progress=said, stopping=stopping
            )
            late = self.clock.now()
            if late - now >= RENEW_EVERY_MS:  # it has waited for the row, and the lease may have passed meanwhile
                now, asked = late, ledger.renew(connection, self.work, now=late, lease_ms=self._lease_ms)
        except Exception:  # within the transaction the driver's own: it is translated at its end
            self._progress = self._progress or said
            raise
        self._renewed = now
        return asked

    def _constraint_lost(self, connection: Connection, now: int) -> str | None:
        return judge(self._demanded, *self._conditions(connection, now)).stop_reason or None
