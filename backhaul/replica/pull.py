"""Pull: ask for what changed since the cursor, apply the page and move the cursor in one transaction, until the head;
before that, fetch the records of changes that were overtaken (see outbox.py).

Where it may be cut: before the applying transaction commits, nothing happened, and the same page comes again; after
it, the cursor has moved with the rows. Two pulls at once: the second to commit finds the cursor moved, and drops its
page.
"""

from __future__ import annotations

from dataclasses import dataclass

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import Refused
from backhaul.remotes import endpoint
from backhaul.remotes.base import Remote
from backhaul.replica import aside, backfill, blocks, checkpoint, outbox, refetch, refill, tables
from backhaul.replica.apply import apply_what_fits
from backhaul.replica.catchup import catch_up
from backhaul.replica.push import Context
from backhaul.telemetry import emit
from backhaul.wire import Page, canonical_key

PAGE = 2_000  # records; the server completes a page to the end of a group


@dataclass(frozen=True, kw_only=True)
class Received:
    """What one pull did. records: how many were touched. position: of the feed, now."""

    records: int
    position: int


def pull(database: Database, remote: Remote, *, clock: Clock, context: Context, limit: int = PAGE) -> Received:
    """Fetch and apply everything up to the head. Raises TableAltered, TryLater, SignInRequired, Refused, Stopped."""
    _check_hold(database, clock.now())
    while backfill.advance(database, now=clock.now(), made_up=True):
        context.check()
    records = refetch.overtaken(database, remote) + refetch.set_aside(database, remote, now=clock.now())
    while True:
        context.check()
        since = _cursor(database)
        asked_at = clock.now()
        since, page = _page(database, remote, since, limit)
        refill.make_room(database, remote, page.records, now=clock.now())
        records += _apply(database, since, page, asked_at=asked_at, now=clock.now())
        context.progress({"done": page.position, "total": page.head})
        if not page.more:
            refill.refill(database, remote, now=clock.now())
            records += catch_up(database, remote, clock=clock, context=context, limit=limit)
            return Received(records=records, position=page.position)


def _check_hold(database: Database, now: int) -> None:
    with database.reading() as connection:
        endpoint.check(connection, now)


def _cursor(database: Database) -> str:
    with database.reading() as connection:
        tables.checked(connection)
        return checkpoint.read(connection).cursor


def _page(database: Database, remote: Remote, since: str, limit: int) -> tuple[str, Page]:
    """The page, and the cursor that it starts from: the beginning, when the server does not know ours any more."""
    try:
        return since, remote.pull(since, limit)
    except Refused as refusal:
        if refusal.problem != "cursor-expired" or not since:
            raise
        # What waits in the outbox stays; everything the server has comes again, and is laid under it.
        with database.writing() as connection:
            checkpoint.hold(connection)
            checkpoint.pull_from_the_beginning(connection)
        return "", remote.pull("", limit)


def _apply(database: Database, since: str, page: Page, *, asked_at: int, now: int) -> int:
    with database.writing() as connection:
        checkpoint.hold(connection)
        tracked = tables.checked(connection)
        if checkpoint.read(connection).cursor != since:
            return 0
        shapes = [one.table for one in tracked]
        touched, refused = apply_what_fits(connection, shapes, page.records, page.position)
        for record, reason in refused:
            aside.keep(connection, record.table, canonical_key(record.key), reason=reason, now=now)
        blocks.turn(connection, shapes, now=now)
        outbox.forget_passed(connection, page.position)
        checkpoint.measure_clock(connection, server_now=page.now, asked_at=asked_at, answered_at=now)
        checkpoint.pulled(connection, page, since=since, now=now)
    if touched:
        emit("pull.applied", records=touched)
    if refused:
        emit("pull.set_aside", records=len(refused))
    return touched
