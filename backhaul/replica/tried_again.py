"""Records that were set aside, fetched and tried again: before a page, and after one that may have brought what they
need.

A record as it is now may be one of several that another replica has changed together, of which the feed has not told
yet. So what is fetched before a page is laid under it, in its transaction: the page was asked for later, and brings the
others. What is fetched after a page is laid in only if nothing of it is newer than that page: else it comes under the
next one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection

from backhaul.database import Database
from backhaul.remotes.base import Remote
from backhaul.replica import apply, aside, blocks, checkpoint, outbox, refetch, refill, rows, tables, upgrades
from backhaul.replica.apart import Ours, apart
from backhaul.replica.arriving import Arriving
from backhaul.replica.tables import Tracked
from backhaul.wire import Record, canonical_key

TURNS = 4  # questions after a page


@dataclass(frozen=True, kw_only=True)
class TriedAgain:
    """places: table and key, as JSON. records: as the server has them. since: the cursor when that was asked."""

    since: str
    places: list[tuple[str, str]]
    records: list[Record]


def fetched(database: Database, remote: Remote, held: TriedAgain | None = None) -> TriedAgain | None:
    """Those first that were not tried for longest; None when nothing is set aside.

    held: what was fetched before, and is good for as long as no page was applied.
    """
    with database.reading() as connection:
        since = checkpoint.read(connection).cursor
        places = aside.longest_untried(connection, refetch.AT_ONCE)
    if held is not None and (held.since, held.places) == (since, places):
        return held
    return _ask(remote, places, since) if places else None


def lay(
    connection: Connection,
    tracked: Sequence[Tracked],
    found: TriedAgain | None,
    known: checkpoint.Checkpoint,
    *,
    upto: int,
    now: int,
) -> int:
    """Lay in what fits by now, under what of ours waits, if nothing of it is newer than this position of the feed, and
    no page was applied since it was asked for. Returns how many records are set aside no longer."""
    if found is None or found.since != known.cursor or any(record.version > upto for record in found.records):
        return 0
    shapes = [one.table for one in tracked]
    there = list(upgrades.under_present_names(shapes, found.records))
    rows.hold_all(connection, shapes, found.places)
    held = [record for record in there if _must_wait(connection, record)]
    others = [_as_of(record, known.position) for record in there if record not in held]
    parts = apart(connection, Ours(connection, tracked), others, now=now)
    _, refused = apply.apply_what_fits(connection, shapes, parts.released, known.position)
    refused += apply.lay_under_again(connection, shapes, parts.records, known.position)
    refused += [(record, aside.HELD) for record in held]
    aside.keep_all(connection, refused, now=now)
    still = {(record.table, canonical_key(record.key)) for record, _ in refused}
    aside.forget(connection, [place for place in found.places if place not in still])
    return len(found.places) - len(still)


def after_a_page(database: Database, remote: Remote, arrived: Collection[str], *, now: int, arriving: Arriving) -> int:
    """Those that may fit now that records of these tables have come: of the same tables, and of tables that refer to
    them. Of many, only the first: all have their turn before a page. Returns how many fit now."""
    with database.reading() as connection:
        if not aside.count(connection):
            return 0
        tracked = [one.table for one in tables.all_tracked(connection)]
    names = [table.name for table in tracked if {table.name, *(to.table for to in table.references)} & set(arrived)]
    fitted, after = 0, ("", "")
    for _ in range(TURNS):
        with database.reading() as connection:
            since = checkpoint.read(connection).cursor
            places = aside.of_tables(connection, names, after=after, limit=refetch.AT_ONCE)
        if not places:
            break
        fitted, after = (
            fitted + _try(database, remote, _ask(remote, places, since), now=now, arriving=arriving),
            places[-1],
        )
    return fitted


def _try(database: Database, remote: Remote, found: TriedAgain, *, now: int, arriving: Arriving) -> int:
    refill.make_room(database, remote, found.records, now=now)
    with database.writing() as connection:
        checkpoint.hold(connection)
        known, tracked = checkpoint.read(connection), tables.checked(connection)
        if found.records:
            arriving(connection, frozenset(record.table for record in found.records))
        fitted = lay(connection, tracked, found, known, upto=known.position, now=now)
        blocks.turn(connection, [one.table for one in tracked], now=now)
        return fitted


def _ask(remote: Remote, places: list[tuple[str, str]], since: str) -> TriedAgain:
    keys = refetch.keys_of(places)
    there = refetch.ask(remote, keys)
    return TriedAgain(since=since, places=places, records=[*there, *refetch.never_were(keys, there)])


def _as_of(record: Record, position: int) -> Record:
    """That a record is not there may be withheld, and is older then than what this replica makes of it later."""
    return record if record.version else msgspec.structs.replace(record, version=max(1, position))


def _must_wait(connection: Connection, record: Record) -> bool:
    """The server does not have it, and has not judged yet what waits of it here, or a person has not."""
    return record.deleted and bool(outbox.of_record(connection, record.table, canonical_key(record.key)))
