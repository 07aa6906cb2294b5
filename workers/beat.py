"""Beat, over the ledger: `celery beat` with this scheduler rings for whatever is due and nobody rang for.

Two beats may run. They take a lease in the database, one leads, the other asks every second and takes over when the
lease has passed. There is no schedule of its own and no file: what is due is what the ledger says.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from celery import Celery
from celery.beat import Scheduler

from backhaul.clock import SystemClock
from backhaul.database import Database
from backhaul.errors import BackhaulError, DatabaseBusy
from backhaul.telemetry import emit
from backhaul.work import lease, ledger, roster
from config.schedule import ensure_standing
from workers.replica import replica_of
from workers.ringing import RING_AGAIN_MS, ring_due
from workers.waking import wake_push

LEASE = "beat"
LEASE_MS = 10_000
RENEW_MS = 3_000
LOOK_SECONDS = 1.0
DAY_MS = 86_400_000
KEEP_MS = 7 * DAY_MS  # finished work; and workers that were not heard of since


class LedgerScheduler(Scheduler):  # type: ignore[misc]  # Celery ships no types
    def __init__(self, app: Celery, **options: Any) -> None:
        self._replica = replica_of(app)
        self._clock = SystemClock()
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._led_until = 0
        self._pruned_at = 0
        super().__init__(app, **options | {"max_interval": LOOK_SECONDS})

    def setup_schedule(self) -> None:
        """There is none: Celery's own entries are for results that we do not keep."""

    def tick(self, *_: Any, **__: Any) -> float:
        """One look; returns the seconds to the next."""
        now = self._clock.now()
        try:
            with self._replica.database.using() as database:
                if not self._leads(database, now):
                    return LOOK_SECONDS
                self._tidy(database, now)
                wake_push(database, now)
            self._ring(now)
            with self._replica.database.using() as database:
                return _seconds_to_the_next(database, now)
        except DatabaseBusy:
            return LOOK_SECONDS  # the app has it; the lease stays ours for a while

    def close(self) -> None:
        """Let the other beat lead at once."""
        try:
            with self._replica.database.using() as database, database.writing() as connection:
                lease.release(connection, LEASE, self._owner)
        except BackhaulError:
            pass  # the lease passes by itself
        super().close()
        self._replica.end()

    def _leads(self, database: Database, now: int) -> bool:
        if now < self._led_until - (LEASE_MS - RENEW_MS):
            return True
        with database.writing() as connection:
            leads = lease.take(connection, LEASE, self._owner, now=now, ms=LEASE_MS)
            if leads:
                ledger.mend_clock(connection, now)
        self._say_if_changed(leads)
        self._led_until = now + LEASE_MS if leads else 0
        return leads

    def _say_if_changed(self, leads: bool) -> None:
        led = self._led_until > 0
        if leads and not led:
            emit("leader.taken", owner=self._owner)
        elif led and not leads:
            emit("leader.lost", owner=self._owner)

    def _tidy(self, database: Database, now: int) -> None:
        with database.reading() as connection:
            running = ledger.query(connection, states=["RUNNING"])
        # Asked first: a look must not wait for the app's writes.
        if any(not now < work.lease_until <= now + ledger.LONGEST_LEASE_MS for work in running):
            with database.writing() as connection:
                for work in ledger.recover(connection, now):
                    emit("work.lost", task=work.task, work=work.id)
        if now - self._pruned_at >= DAY_MS:
            self._pruned_at = now
            with database.writing() as connection:
                ensure_standing(connection, self._replica.settings, now)
                ledger.prune(connection, now=now, older_than_ms=KEEP_MS)
                roster.forget_gone(connection, now=now, older_than_ms=KEEP_MS)

    def _ring(self, now: int) -> None:
        try:
            ring_due(
                self.app,
                self._replica.database,
                now=now,
                ring_again_ms=RING_AGAIN_MS,
                queues=list(self._replica.settings.queues),
            )
        except DatabaseBusy:
            raise
        except Exception as error:  # the broker is gone; what is due stays due
            emit("broker.lost", error=type(error).__name__)
            self._mend_broker()

    def _mend_broker(self) -> None:
        try:
            self._replica.ensure_broker()
        except BackhaulError as error:
            emit("broker.lost", error=str(error))


def _seconds_to_the_next(database: Database, now: int) -> float:
    with database.reading() as connection:
        due_at = ledger.next_due_at(connection, now)
    return LOOK_SECONDS if due_at is None else min(LOOK_SECONDS, max(0.05, (due_at - now) / 1000))
