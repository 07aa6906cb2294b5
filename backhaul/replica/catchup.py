"""Catching up: what the server has of a table or of columns that are new here, and nothing else.

The ordinary cursor stays where it is, and so does what waits. A table (or some of its columns) that was tracked later
than the rest has a round of pages of its own, from the beginning to the head, with a cursor of its own in
backhaul_table: it may be cut anywhere, and goes on from there. A page is asked for outside of any transaction, and is
dropped when a page of the ordinary feed was applied meanwhile: that one may be newer.
"""

from __future__ import annotations

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import Refused
from backhaul.remotes.base import Remote
from backhaul.replica import aside, blocks, checkpoint, paging, refill, tables, upgrades
from backhaul.replica.apply import apply_what_fits
from backhaul.replica.arriving import Arriving
from backhaul.replica.context import Context
from backhaul.replica.tables import Behind
from backhaul.telemetry import emit
from backhaul.wire import Page, canonical_key


def catch_up(
    database: Database, remote: Remote, *, clock: Clock, context: Context, limit: int, arriving: Arriving
) -> int:
    """Fetch and apply all that is new; returns how many records were touched. Raises what a pull raises."""
    touched = 0
    while True:
        context.check()
        with database.reading() as connection:
            behind = tables.behind(connection)
            since = checkpoint.read(connection).cursor
        if behind is None:
            return touched
        page = _page(database, remote, behind, limit, now=clock.now())
        if page is None:
            with database.writing() as connection:
                tables.caught_up_to(connection, behind, "")
            continue
        if not behind.columns:
            refill.make_room(database, remote, page.records, now=clock.now())
        touched += _apply(database, behind, page, since=since, now=clock.now(), arriving=arriving)


def _page(database: Database, remote: Remote, behind: Behind, limit: int, *, now: int) -> Page | None:
    """None: the server does not know the cursor any more."""
    try:
        return paging.alone(
            database,
            limit,
            lambda asked: remote.catch_up(behind.cursor, asked, behind.table, behind.columns),
            now=now,
        )
    except Refused as refusal:
        if refusal.problem not in ("cursor-expired", "server-restored") or not behind.cursor:
            raise
        return None


def _apply(database: Database, behind: Behind, page: Page, *, since: str, now: int, arriving: Arriving) -> int:
    with database.writing() as connection:
        checkpoint.hold(connection)
        shapes = [one.table for one in tables.checked(connection)]
        known = checkpoint.read(connection)
        if known.cursor != since or tables.behind(connection) != behind:
            return 0
        records = list(upgrades.under_present_names(shapes, page.records))
        if records:
            arriving(connection, frozenset(record.table for record in records))
        touched, refused = apply_what_fits(connection, shapes, records, known.position)
        for record, reason in refused:
            aside.keep(connection, record.table, canonical_key(record.key), reason=reason, now=now)
        blocks.turn(connection, shapes, now=now)
        if page.more:
            tables.caught_up_to(connection, behind, page.cursor)
        else:
            tables.caught_up(connection, behind)
    emit("pull.caught_up", table=behind.table, records=touched)
    return touched
