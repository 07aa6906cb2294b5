"""How large the chunks of an upload or a download are: each must be through long before the lease of its work ends.

Where nothing was learned of the link they begin small, and double as long as that goes well (slow start: Jacobson,
1988), or grow fourfold where even that would be quick; from the first trouble on, what was learned stands, for later
uploads, too.
"""

from __future__ import annotations

from sqlalchemy import Connection

from backhaul.aimd import QUICK_MS, SLOW_MS, Bounds, after
from backhaul.database import Database
from backhaul.remotes import pace
from backhaul.remotes.pace import Direction, Exchange

FIRST_CHUNK_BYTES = 64 * 2**10
STEPS = 16


class Chunks:
    """size: bytes of the next one, at most `most`."""

    def __init__(self, database: Database, *, most: int, direction: Direction = "upload") -> None:
        self._database = database
        self._direction = direction
        self._bounds = Bounds(least=min(FIRST_CHUNK_BYTES, most), most=most, steps=STEPS)
        with database.reading() as connection:
            known = pace.learned(connection, self._direction)
        self._learned = "bytes" in known
        self.size = self._bounds.within(known["bytes"].value if self._learned else FIRST_CHUNK_BYTES)

    def went_through(self, connection: Connection, sent: int, *, took_ms: int, now: int) -> None:
        """A chunk of so many bytes is there."""
        if not self._learned and took_ms <= SLOW_MS:
            times = 4 if 4 * took_ms < QUICK_MS else 2
            larger = (
                max(self.size, times * sent) if took_ms < QUICK_MS else after(self.size, sent, took_ms, self._bounds)
            )
            self.size = self._bounds.within(larger)
            return
        pace.went_through(connection, self._exchange(sent), took_ms=took_ms, now=now)
        self._look(connection)

    def halve(self, sent: int, because: Exception, *, now: int) -> bool:
        """A chunk of so many bytes was too large, or its time ran out. Whether there is a smaller one to try."""
        with self._database.writing() as connection:
            pace.trouble(connection, self._exchange(sent), reason=str(because), now=now)
            self._look(connection)
        return self.size < sent

    def _exchange(self, sent: int) -> Exchange:
        return Exchange(direction=self._direction, used={"bytes": sent}, bounds={"bytes": self._bounds})

    def _look(self, connection: Connection) -> None:
        known = pace.learned(connection, self._direction)
        self._learned = "bytes" in known
        self.size = pace.within(known, "bytes", self._bounds.most)
