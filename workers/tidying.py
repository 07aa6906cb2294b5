"""Keeping the folder of kept files within its budget, and one with its ledger: a part of it at each look, a round an
hour, and no look a long one."""

from __future__ import annotations

from backhaul.database import Database
from backhaul.errors import StorageFull
from backhaul.media.cache import Limits, evict
from backhaul.media.store import Store
from backhaul.media.tidy import PARTS, tidy_part
from backhaul.telemetry import emit

EVERY_MS = 3_600_000
EVICT_EVERY_MS = 60_000


class Tidying:
    """One round after another."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._evict_at = 0
        self._parts = iter(PARTS)
        self._next_at = 0

    def step(self, database: Database, now: int) -> None:
        """Raises DatabaseBusy."""
        if now >= self._evict_at or now < self._evict_at - EVICT_EVERY_MS:  # or the clock was set back
            self._evict_at = now + EVICT_EVERY_MS
            self._evict(database)
        self._tidy(database, now)

    def _evict(self, database: Database) -> None:
        try:
            gone = evict(database, self._store, self._limits)
        except StorageFull as error:
            emit("media.untidy", folder=str(self._store.folder), error=str(error))
            return
        if gone.contents:
            emit("media.evicted", contents=gone.contents, excess=gone.excess)

    def _tidy(self, database: Database, now: int) -> None:
        if self._next_at - EVERY_MS <= now < self._next_at:
            return
        part = next(self._parts, None)
        if part is None:
            self._parts, self._next_at = iter(PARTS), now + EVERY_MS
            return
        try:
            found = tidy_part(database, self._store, part)
        except StorageFull as error:  # the lock cannot be made: the next round tries again
            emit("media.untidy", folder=str(self._store.folder), error=str(error))
            return
        if found.number:
            emit(
                "media.tidied",
                leftovers=found.leftovers,
                orphans=len(found.orphans),
                dangling=len(found.dangling),
            )
