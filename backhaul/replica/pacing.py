"""How much a push sends at once, and how many records a page is asked for: what was learned, and what is learned."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from backhaul.aimd import SLOW_MS, Bounds, after
from backhaul.database import Database
from backhaul.errors import Busy, Refused, TimedOut, TryLater
from backhaul.remotes import endpoint, pace
from backhaul.remotes.answers import AnswerTooLarge
from backhaul.remotes.pace import Dial, Exchange, Learned
from backhaul.replica.lanes import Lane
from backhaul.replica.outbox import Change, size_of
from backhaul.wire import Page

SMALL_BYTES = 16 * 2**10  # a message of less that was slow says something of the link, and nothing of its size
FEW_RECORDS = 50  # so it is with a page of less
STEPS_OF_PAGES = 50

Ask = Callable[[int], Page]


@dataclass(frozen=True, kw_only=True)
class Pacer:
    """Of one push. lane: the one it is in. most_ops: of one message, whatever is learned."""

    lane: Lane
    most_ops: int

    def room(self, connection: Connection, limit: int) -> tuple[int, int]:
        """How many ops, up to the limit, and how many bytes the next message may hold."""
        known = pace.learned(connection, "push")
        return pace.within(known, "ops", limit), pace.within(known, "bytes", endpoint.MOST_BYTES)

    def taken(self, connection: Connection, changes: Sequence[Change], *, took_ms: int, now: int) -> None:
        """The server has taken this message."""
        used = _used(changes)
        took_ms = took_ms if used["bytes"] >= SMALL_BYTES else min(took_ms, SLOW_MS)
        if not self.lane.number:  # one of them counts, or they would come back as fast as they are many
            used |= self._lanes(connection)
        pace.went_through(connection, self._exchange(used), took_ms=took_ms, now=now)

    def failed(self, connection: Connection, changes: Sequence[Change], error: TryLater, *, now: int) -> None:
        """No answer to this message, or the server is busy: fewer lanes; and less at once, if time ran out."""
        if not isinstance(error, TimedOut | Busy):
            return
        used = _used(changes) if isinstance(error, TimedOut) else {}
        if used and used["bytes"] < SMALL_BYTES:
            used = {}  # sent again and again it shrinks all the same, down to one group: outbox.claim
        used |= self._lanes(connection)
        pace.trouble(connection, self._exchange(used), reason=str(error), now=now)

    def too_large(self, connection: Connection, changes: Sequence[Change], refusal: Refused, *, now: int) -> None:
        """This message was refused for its size."""
        pace.trouble(connection, self._exchange(_used(changes)), reason=str(refusal), now=now)

    def _lanes(self, connection: Connection) -> dict[Dial, int]:
        return {"lanes": lanes_in_use(connection, self.lane.of)} if self.lane.of > 1 else {}

    def _exchange(self, used: Mapping[Dial, int]) -> Exchange:
        bounds: dict[Dial, Bounds] = {
            "ops": Bounds(most=self.most_ops),
            "bytes": Bounds(most=endpoint.MOST_BYTES),
            "lanes": Bounds(most=self.lane.of),
        }
        return Exchange(direction="push", used=used, bounds=bounds)


def lanes_in_use(connection: Connection, of: int) -> int:
    return pace.within(pace.learned(connection, "push"), "lanes", of)


def page_of(database: Database, known: Learned, most: int, ask: Ask, *, now: int) -> Page:
    """Ask for as many records as was learned; for half of that at once where the answer was more than we hold, and the
    next time where it did not come in time: down to one, or over a thin link large records would never come. Raises
    what asking raises."""
    asked, began = pace.within(known, "records", most), time.monotonic()
    while True:
        try:
            page = ask(asked)
        except AnswerTooLarge as error:
            _ask_for_less(database, asked, most, reason=error, now=now)
            if asked == 1:
                raise
            asked //= 2
        except TimedOut as error:
            _ask_for_less(database, asked, most, reason=error, now=now)
            raise
        else:
            took_ms = int((time.monotonic() - began) * 1000)
            took_ms = took_ms if len(page.records) >= FEW_RECORDS else min(took_ms, SLOW_MS)
            _page_came(database, asked, len(page.records), most, took_ms=took_ms, now=now)
            return page


def _ask_for_less(database: Database, asked: int, most: int, *, reason: Exception, now: int) -> None:
    with database.writing() as connection:
        pace.trouble(connection, _of_records(asked, most), reason=str(reason), now=now)


def _page_came(database: Database, asked: int, came: int, most: int, *, took_ms: int, now: int) -> None:
    """A round of small pages that nothing is learned from costs no transaction."""
    exchange = _of_records(came, most)
    if after(asked, came, took_ms, exchange.bounds["records"]) != asked:
        with database.writing() as connection:
            pace.went_through(connection, exchange, took_ms=took_ms, now=now)


def _of_records(number: int, most: int) -> Exchange:
    bounds = Bounds(most=most, steps=STEPS_OF_PAGES)
    return Exchange(direction="pull", used={"records": number}, bounds={"records": bounds})


def _used(changes: Sequence[Change]) -> dict[Dial, int]:
    return {"ops": len(changes), "bytes": sum(map(size_of, changes))}
