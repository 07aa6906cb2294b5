"""Beat, over the ledger: `celery beat` with this scheduler rings for whatever is due and nobody rang for.

Two beats may run. They take a lease in the database, one leads, the other asks every second and takes over when the
lease has passed. There is no schedule of its own and no file: what is due is what the ledger says.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

from celery import Celery
from celery.beat import Scheduler

from backhaul.clock import SystemClock
from backhaul.database import Database
from backhaul.errors import BackhaulError, DatabaseBusy
from backhaul.remotes import traffic
from backhaul.telemetry import emit
from backhaul.work import conditions, lease, ledger, roster
from backhaul.work.changes import look_at_files, look_at_tables
from backhaul.work.context import RENEW_EVERY_MS
from config.media import limits_of, store_of
from config.schedule import ensure_standing
from workers.replica import replica_of
from workers.ringing import BATCH, RING_AGAIN_MS, ring_due
from workers.tidying import Tidying
from workers.waking import see_to_files, wake_push

LEASE = "beat"
LEASE_MS = 10_000
RENEW_MS = 4_000
LOOK_SECONDS = 1.0
AT_ONCE_SECONDS = 0.05  # when there is more to ring for than was rung for at once
AWAY_MS = 10_000  # between two looks: this machine has slept, or its clock was set, or Beat itself was held up
PATIENCE_MS = 2 * RENEW_EVERY_MS  # for the runs of a machine that was away: they renew their leases before that
PATIENT_AGAIN_MS = 60_000  # a Beat that is held up at each look would take back nothing
MEND_EVERY_SECONDS = 300.0  # what another machine wrote while its clock was ahead: all that waits is looked at
PRUNE_EVERY_MS = 3_600_000
PRUNED = 1_000  # at once
KEEP_MS = 86_400_000  # workers that were not heard of since
SILENT_SECONDS = 60.0  # PostgreSQL, while one look goes on
SHARE = 20  # looking at the files that work waits for may take one part in so many of the time


class LedgerScheduler(Scheduler):  # type: ignore[misc]  # Celery ships no types
    def __init__(self, app: Celery, **options: Any) -> None:
        self._replica = replica_of(app)
        self._clock = SystemClock()
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._leading = False
        self._renew_at = 0
        self._pruned_at = 0
        self._files_at = 0.0
        self._media = Tidying(store_of(self._replica.settings), limits_of(self._replica.settings))
        self._looking = False
        self._ticked_at = 0
        self._patient_until = 0
        self._mended_at = -MEND_EVERY_SECONDS
        self._ended = threading.Event()
        if self._replica.database.on_server:
            threading.Thread(target=self._lose_patience, name="backhaul-patience", daemon=True).start()
        super().__init__(app, **options | {"max_interval": LOOK_SECONDS})

    def setup_schedule(self) -> None:
        """There is none: Celery's own entries are for results that we do not keep."""

    def tick(self, *_: Any, **__: Any) -> float:
        """One look; returns the seconds to the next."""
        self._looking = True
        try:
            return self._look()
        finally:
            self._looking = False

    def _look(self) -> float:
        now = self._clock.now()
        if now < self._ticked_at:  # the clock was set back: no time from before says anything now
            self._renew_at, self._mended_at = 0, -MEND_EVERY_SECONDS
            self._patient_until = 0
        if 0 < self._ticked_at < now - AWAY_MS and now - self._patient_until >= PATIENT_AGAIN_MS:
            self._patient_until = now + PATIENCE_MS
        self._ticked_at = now
        try:
            with self._replica.database.using() as database:
                if not self._leads(database, now):
                    return LOOK_SECONDS
        except DatabaseBusy:
            return LOOK_SECONDS  # the app has it; the lease stays ours for a while
        self._look_after(now)
        try:
            if self._ring(now) >= BATCH:
                return AT_ONCE_SECONDS
            with self._replica.database.using() as database:
                return self._seconds_to_the_next(database, now)
        except DatabaseBusy:
            return LOOK_SECONDS

    def _look_after(self, now: int) -> None:
        """One step that is busy costs the others nothing, but on SQLite, which is busy as a whole: there the rest of
        them waits for the next look, and only the bell is rung."""
        tidying = self._mend_clock, self._recover, self._expire, self._prune
        looking = look_at_tables, self._look_at_files, see_to_files, wake_push, self._media.step
        with self._replica.database.using() as database:
            for step in (*tidying, *looking):
                try:
                    step(database, now)
                except DatabaseBusy:
                    if database.sqlite:
                        return

    def close(self) -> None:
        """Let the other beat lead at once.

        Celery calls this from the handler of the signal, too, in the middle of whatever a look is doing: of a
        transaction that holds what this would wait for. That look ends with the handler, and then this is called again.
        """
        if self._looking:
            return
        try:
            with self._replica.database.using() as database, database.writing() as connection:
                lease.release(connection, LEASE, self._owner)
        except BackhaulError:
            pass  # the lease passes by itself
        super().close()
        self._ended.set()
        self._replica.end()

    def _lose_patience(self) -> None:
        while not self._ended.wait(SILENT_SECONDS / 2):
            self._replica.database.cut_if_silent(SILENT_SECONDS)

    def _leads(self, database: Database, now: int) -> bool:
        if now < self._renew_at:
            return True
        with database.writing(lasting=False) as connection:
            leads = lease.take(connection, LEASE, self._owner, now=now, ms=LEASE_MS)
        if leads != self._leading:
            if leads:
                emit("leader.taken", owner=self._owner)
            else:
                emit("leader.lost", owner=self._owner)
            self._mended_at = -MEND_EVERY_SECONDS
        self._leading = leads
        self._renew_at = now + RENEW_MS if leads else 0
        return leads

    def _mend_clock(self, database: Database, now: int) -> None:
        """Seldom, for it looks at all that waits; and at once when this machine's clock was set back."""
        if time.monotonic() - self._mended_at < MEND_EVERY_SECONDS:
            return
        with database.reading() as connection:  # asked first, as in _recover
            ahead = ledger.has_begun_ahead(connection, now)
        if ahead:
            with database.writing() as connection:
                ledger.mend_clock(connection, now)
        self._mended_at = time.monotonic()

    def _recover(self, database: Database, now: int) -> None:
        if now < self._patient_until:  # what slept with this machine goes on just now
            return
        with database.reading() as connection:  # asked first: a look must not wait for the app's writes
            lost = ledger.has_lost(connection, now)
        if lost:
            with database.writing() as connection:
                works = ledger.recover(connection, now, most_losses=self._replica.settings.work.most_losses)
            for work in works:
                if work.last_outcome == "failure":
                    emit("work.failed", task=work.label, work=work.id, error=work.last_error)
                else:
                    emit("work.lost", task=work.label, work=work.id)

    def _expire(self, database: Database, now: int) -> None:
        with database.reading() as connection:
            late = ledger.has_expired(connection, now)
        if late:
            with database.writing() as connection:
                ended = ledger.expire(connection, now)
            for one in ended:
                emit("work.expired", task=one.label, work=one.id)

    def _prune(self, database: Database, now: int) -> None:
        """Once an hour, and a part at a time, so that the app need not wait for it."""
        if now - self._pruned_at < PRUNE_EVERY_MS:
            return
        with database.writing() as connection:
            ensure_standing(connection, self._replica.settings, now)
            roster.forget_gone(connection, now=now, older_than_ms=KEEP_MS)
            conditions.forget_expired(connection, now)
            traffic.forget_old(connection, traffic.local_day(now))
            pruned = ledger.prune(connection, now=now, older_than_ms=self._replica.settings.work.keep, limit=PRUNED)
        if pruned < PRUNED:
            self._pruned_at = now

    def _look_at_files(self, database: Database, now: int) -> None:
        began = time.monotonic()
        if began >= self._files_at:
            look_at_files(database, now)
            self._files_at = began + SHARE * (time.monotonic() - began)

    def _ring(self, now: int) -> int:
        """Returns for how many."""
        try:
            rung = ring_due(
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
            return 0
        return len(rung)

    def _mend_broker(self) -> None:
        try:
            self._replica.ensure_broker()
        except BackhaulError as error:
            emit("broker.lost", error=str(error))

    def _seconds_to_the_next(self, database: Database, now: int) -> float:
        with database.reading() as connection:
            due_at = ledger.next_due_at(connection, now, queues=list(self._replica.settings.queues))
        return LOOK_SECONDS if due_at is None else min(LOOK_SECONDS, max(0.05, (due_at - now) / 1000))
