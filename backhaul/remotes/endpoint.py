"""Ledger of backhaul_endpoint: what a replica knows of its server as an endpoint. One row, once there is something.

Hold: a server that answers 429 or 503 with `Retry-After` (RFC 9110, 10.2.3) is left alone until then by everything:
push, pull and media, in every process of this replica. The wait lies in the database, so it outlives them.

Sizes: a message that is too large (413) halves what the next ones may hold, in ops and in bytes; each message that
goes through gives back half a hundredth of the whole (additive increase, multiplicative decrease: Chiu and Jain, 1989).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Connection, text

from backhaul.clock import Clock, iso
from backhaul.database import Database
from backhaul.errors import Busy, DatabaseBusy

LONGEST_HOLD_MS = 3_600_000  # a hold that ends later was set while the clock was wrong
MOST_BYTES = 4 * 2**20  # of a message's ops, unless one group alone is larger; half of what a server must take
GROWTH = 200  # messages that go through until all of it is given back


@dataclass(frozen=True, kw_only=True)
class Hold:
    until: int
    because: str


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a message may hold. None: nothing was learned, whatever the caller likes."""

    ops: int | None = None
    size: int | None = None


class Endpoint:
    """The same for a remote, which has no transaction of its own."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def check(self) -> None:
        """Raises Busy while the server has asked to be left alone."""
        with self._database.reading() as connection:
            check(connection, self._clock.now())

    def hold(self, wait_ms: int, because: str) -> None:
        with suppress(DatabaseBusy), self._database.writing() as connection:
            hold(connection, wait_ms=wait_ms, because=because, now=self._clock.now())


def held(connection: Connection, now: int) -> Hold | None:
    row = connection.execute(text("SELECT held_until, held_because FROM backhaul_endpoint")).first()
    if row is None or not now < row.held_until <= now + LONGEST_HOLD_MS:
        return None
    return Hold(until=row.held_until, because=row.held_because or "")


def check(connection: Connection, now: int) -> None:
    """Raises Busy while the server has asked to be left alone."""
    found = held(connection, now)
    if found is not None:
        raise Busy(
            f"the server asked to be left alone until {iso(found.until)}: {found.because}",
            hint="what waits is kept, and goes by itself then",
            retry_after_ms=found.until - now,
        )


def hold(connection: Connection, *, wait_ms: int, because: str, now: int) -> None:
    """Nobody of this replica asks the server before this wait is over; a longer wait that was set before stays."""
    statement = """
        INSERT INTO backhaul_endpoint (id, held_until, held_because) VALUES (1, :until, :because)
        ON CONFLICT (id) DO UPDATE SET held_until = excluded.held_until, held_because = excluded.held_because
        WHERE backhaul_endpoint.held_until < excluded.held_until OR backhaul_endpoint.held_until > :longest
    """
    until = now + min(wait_ms, LONGEST_HOLD_MS)
    values = {"until": until, "because": because[:500], "longest": now + LONGEST_HOLD_MS}
    connection.execute(text(statement), values)


def let_go(connection: Connection) -> None:
    """A person asks for it now; if the server still wants to be left alone, it says so again."""
    connection.execute(text("UPDATE backhaul_endpoint SET held_until = 0 WHERE held_until > 0"))


def sizes(connection: Connection) -> Sizes:
    row = connection.execute(text("SELECT most_ops, most_bytes FROM backhaul_endpoint")).first()
    return Sizes() if row is None else Sizes(ops=row.most_ops, size=row.most_bytes)


def too_large(connection: Connection, *, ops: int, size: int) -> None:
    """A message of so many ops and bytes was too large: the next ones may hold half of that."""
    statement = """
        INSERT INTO backhaul_endpoint (id, most_ops, most_bytes) VALUES (1, :ops, :size)
        ON CONFLICT (id) DO UPDATE SET most_ops = excluded.most_ops, most_bytes = excluded.most_bytes
    """
    connection.execute(text(statement), {"ops": max(1, ops // 2), "size": max(1, size // 2)})


def went_through(connection: Connection, *, most_ops: int, most_bytes: int) -> None:
    """A message went through: the next one may hold a little more, up to these, where nothing is left to know."""
    statement = """
        UPDATE backhaul_endpoint
        SET most_ops = CASE WHEN most_ops + :ops < :most_ops THEN most_ops + :ops END,
            most_bytes = CASE WHEN most_bytes + :bytes < :most_bytes THEN most_bytes + :bytes END
        WHERE most_ops IS NOT NULL OR most_bytes IS NOT NULL
    """
    values = {"ops": max(1, most_ops // GROWTH), "bytes": most_bytes // GROWTH}
    connection.execute(text(statement), values | {"most_ops": most_ops, "most_bytes": most_bytes})
