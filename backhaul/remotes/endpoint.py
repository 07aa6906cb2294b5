"""Ledger of backhaul_endpoint: what a replica knows of its server as an endpoint. A row for each wait.

Hold: a server that answers 429 or 503 with `Retry-After` (RFC 9110, 10.2.3) is left alone until then by everything:
push, pull and media, in every process of this replica. What it answers to media alone holds media alone: the bucket
behind it may be slow, and data does not wait for that. The wait lies in the database, so it outlives all processes.

How much a message may hold is another ledger's: pace.py.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Connection

from backhaul.clock import Clock, iso
from backhaul.database import Database
from backhaul.errors import Busy, DatabaseBusy
from backhaul.remotes.traffic import Meter
from backhaul.statements import text

ALL, MEDIA = 1, 2  # rows
LONGEST_HOLD_MS = 3_600_000  # a hold that ends later was set while the clock was wrong
MOST_BYTES = 4 * 2**20  # of a message's ops, unless one group alone is larger; half of what a server must take


@dataclass(frozen=True, kw_only=True)
class Hold:
    until: int
    because: str


class Endpoint:
    """The same for a remote, which has no transaction of its own."""

    def __init__(self, database: Database, clock: Clock, meter: Meter | None = None, *, media: bool = False) -> None:
        """media: of a remote that asks for nothing but media."""
        self._row = MEDIA if media else ALL
        self._database = database
        self._clock = clock
        self._meter = meter

    def check(self) -> None:
        """Raises Busy while the server has asked to be left alone."""
        with self._database.reading() as connection:
            check(connection, self._clock.now(), row=self._row)

    def count(self, sent: int, received: int) -> None:
        """Bytes of an exchange, whatever came of it."""
        if self._meter is not None:
            self._meter.count(sent, received)

    def write_count(self) -> None:
        """Before a remote closes, whose process may end with it."""
        if self._meter is not None:
            self._meter.write()

    def hold(self, wait_ms: int, because: str) -> None:
        with suppress(DatabaseBusy), self._database.writing() as connection:
            hold(connection, wait_ms=wait_ms, because=because, now=self._clock.now(), row=self._row)


def held(connection: Connection, now: int, *, row: int = ALL) -> Hold | None:
    """Until when who asks so is to leave the server alone; media does so for what holds all, too."""
    statement = """
        SELECT held_until, held_because
        FROM backhaul_endpoint
        WHERE id <= :row AND held_until > :now AND held_until <= :longest
        ORDER BY held_until DESC
        LIMIT 1
    """
    found = connection.execute(text(statement), {"row": row, "now": now, "longest": now + LONGEST_HOLD_MS}).first()
    return None if found is None else Hold(until=found.held_until, because=found.held_because or "")


def check(connection: Connection, now: int, *, row: int = ALL) -> None:
    """Raises Busy while the server has asked to be left alone."""
    found = held(connection, now, row=row)
    if found is not None:
        raise Busy(
            f"the server asked to be left alone until {iso(found.until)}: {found.because}",
            hint="what waits is kept, and goes by itself then",
            retry_after_ms=found.until - now,
        )


def hold(connection: Connection, *, wait_ms: int, because: str, now: int, row: int = ALL) -> None:
    """Nobody of this replica asks the server before this wait is over; a longer wait that was set before stays."""
    statement = """
        INSERT INTO backhaul_endpoint (id, held_until, held_because) VALUES (:row, :until, :because)
        ON CONFLICT (id) DO UPDATE SET held_until = excluded.held_until, held_because = excluded.held_because
        WHERE backhaul_endpoint.held_until < excluded.held_until OR backhaul_endpoint.held_until > :longest
    """
    until = now + min(wait_ms, LONGEST_HOLD_MS)
    values = {"row": row, "until": until, "because": because[:500], "longest": now + LONGEST_HOLD_MS}
    connection.execute(text(statement), values)


def let_go(connection: Connection) -> None:
    """A person asks for it now; if the server still wants to be left alone, it says so again."""
    connection.execute(text("UPDATE backhaul_endpoint SET held_until = 0 WHERE held_until > 0"))
