"""Refill: ask the server for numbers before they run out, and before rows come in that lie above those in hand.

Where it may be cut: numbers that were handed out and did not arrive are lost, and nobody misses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backhaul.database import Database
from backhaul.errors import Refused, SignInRequired, TryLater
from backhaul.remotes.base import Remote
from backhaul.replica import blocks, checkpoint, tables
from backhaul.telemetry import emit
from backhaul.wire import Record, Wanted


def refill(database: Database, remote: Remote, *, now: int) -> None:
    """See that every table that draws from blocks has a good one and a spare one. What cannot be had now is asked for
    with the next push or pull: nothing else waits for it."""
    with database.reading() as connection:
        tracked = [one.table for one in tables.all_tracked(connection)]
        if not blocks.drawing(tracked):
            return
    for _ in range(2):  # one to open, and one to spare
        with database.writing() as connection:
            checkpoint.hold(connection)
            blocks.turn(connection, tracked, now=now)
            wanted = blocks.lacking(connection, tracked)
        if not wanted:
            return
        try:
            _ask(database, remote, wanted, now=now)
        except (TryLater, SignInRequired, Refused) as error:
            emit("blocks.failed", error=type(error).__name__)
            return
    with database.writing() as connection:
        checkpoint.hold(connection)
        blocks.turn(connection, tracked, now=now)


def turn(database: Database, *, now: int) -> None:
    """Begin what is in hand where it is time to, without asking anybody."""
    with database.reading() as connection:
        tracked = [one.table for one in tables.all_tracked(connection)]
        due = blocks.is_due(connection, tracked)
    if due:
        with database.writing() as connection:
            checkpoint.hold(connection)
            blocks.turn(connection, tracked, now=now)


def make_room(database: Database, remote: Remote, records: Iterable[Record], *, now: int) -> None:
    """See that there is a block above these records before they come in: between their coming in and the answer the
    app would draw a number that is another's. Raises TryLater, SignInRequired."""
    above: dict[str, int] = {}
    for record in records:
        number = record.key[0]
        if type(number) is int and not record.deleted and number > above.get(record.table, 0):
            above[record.table] = number
    if not above:
        return
    with database.reading() as connection:
        tracked = [one.table for one in tables.all_tracked(connection)]
        wanted = blocks.lacking(connection, tracked, above=above) if blocks.drawing(tracked) else {}
    if wanted:
        try:
            _ask(database, remote, wanted, now=now)
        except Refused as refusal:  # a server without blocks: what meets is parked, as under any generated key
            emit("blocks.failed", error=refusal.problem)


def _ask(database: Database, remote: Remote, wanted: Mapping[str, Wanted], *, now: int) -> None:
    given = remote.blocks(wanted)
    with database.writing() as connection:
        checkpoint.hold(connection)
        blocks.keep(connection, given, now=now)
    emit("blocks.given", tables=len(given))
