"""Pull: ask for what changed since the cursor, apply the page and move the cursor in one transaction, until the head;
before that, fetch the records of changes that were overtaken (see outbox/settling.py) and those that were set aside
(tried_again.py), which are laid under the page.

A round of several pages becomes visible together: the first few are held in memory, more are staged (stage.py), and all
are applied with the last one. A round that is too long for that is applied in pieces, for on SQLite nobody else can
write meanwhile.

Where it may be cut: before the applying transaction commits, nothing happened, and the same page comes again; after
it, the cursor has moved with the rows. Two pulls at once: the second to commit finds the cursor moved, and drops its
page. What the server may say of the cursor, and what comes of it: see recover.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import Refused
from backhaul.remotes import endpoint
from backhaul.remotes.base import Remote
from backhaul.replica import (
    aside,
    backfill,
    blocks,
    checkpoint,
    clock_guard,
    conflicts,
    following,
    outbox,
    paging,
    recover,
    refetch,
    refill,
    restored,
    stage,
    suspicion,
    sweep,
    tables,
    tried_again,
    under,
    unseen,
    upgrades,
)
from backhaul.replica.apart import Ours, apart
from backhaul.replica.apply import apply_what_fits
from backhaul.replica.arriving import Arriving, untold
from backhaul.replica.catchup import catch_up
from backhaul.replica.context import Context
from backhaul.replica.recover import OnReset
from backhaul.replica.tables import Tracked
from backhaul.replica.under import Under
from backhaul.telemetry import emit
from backhaul.wire import Page, Record, Table

PAGE = 2_000  # records; the server completes a page to the end of a group
MOST_HELD = 5  # pages of a round in memory; a round of more is staged, and so is one whose next page does not come
MOST_ROUNDS = 5  # until no change is overtaken any more; then it is the next pull's
MOST_TOGETHER = 50_000  # records that are applied in one transaction on SQLite: the app waits for about a second

Brought = Callable[[Connection, Sequence[Record]], object]


@dataclass(frozen=True, kw_only=True)
class Received:
    """What one pull did. records: how many were touched. position: of the feed, now. offered: how many changes were put
    into the outbox, because the server has lost them."""

    records: int
    position: int
    offered: int = 0


def pull(
    database: Database,
    remote: Remote,
    *,
    clock: Clock,
    context: Context,
    limit: int = PAGE,
    most_held: int = MOST_HELD,
    on_reset: OnReset = "recover",
    arriving: Arriving = untold,
    brought: Brought = lambda _connection, _records: None,
) -> Received:
    """Fetch and apply everything up to the head. Raises TableAltered, TryLater, SignInRequired, Refused, Stopped.

    most_held: pages of a round in memory. on_reset: what becomes of what waits when this replica was away for too long
    (see recover.py). arriving: is told, in each transaction that applies records, of which tables they are. brought: is
    told of the records of each page, in the transaction that takes it, before they are applied; a page that comes again
    is told again.
    """
    options: dict[str, Any] = {
        "clock": clock,
        "context": context,
        "limit": limit,
        "most_held": most_held,
        "on_reset": on_reset,
        "arriving": arriving,
        "brought": brought,
    }
    try:
        return _pull(database, remote, **options)
    except Refused as refusal:
        if refusal.problem != "schema-behind":
            raise
    following.follow(database, remote)  # what waits was written without a look at what comes now
    return _pull(database, remote, **options)


def _pull(
    database: Database,
    remote: Remote,
    *,
    clock: Clock,
    context: Context,
    limit: int,
    most_held: int,
    on_reset: OnReset,
    arriving: Arriving,
    brought: Brought,
) -> Received:
    recover.be_oneself(database, remote)
    _check_hold(database, clock.now())
    refetch.contested(database, remote)
    while backfill.advance(database, now=clock.now(), made_up=True):
        context.check()
    offered = 0
    arrived: set[str] = set()
    beneath, records, rounds = Under(), 0, 0
    while True:
        context.check()
        swept, found = _recover(database, remote, clock=clock, context=context, limit=limit, arriving=arriving)
        records, offered = records + swept, offered + found
        beneath = under.fetched(database, remote, beneath)
        since = _cursor(database)
        asked_at = clock.now()
        page = paging.page(database, remote, since, limit, on_reset, now=asked_at)
        if page is None:
            continue
        held = 1
        while page.more and held < most_held and not _recovering(database):
            context.check()
            later = clock.now()
            further = paging.further(database, remote, page, limit, now=later)
            if further is None:
                break
            page, asked_at, held = paging.joined(page, further), later, held + 1
        refill.make_room(database, remote, [*page.records, *beneath.records], now=clock.now())
        times = {"asked_at": asked_at, "now": clock.now()}
        records += _take(database, remote, since, page, beneath, arriving=arriving, brought=brought, **times)
        context.progress({"done": page.position, "total": page.head})
        arrived |= {record.table for record in page.records} | beneath.overtaken_tables
        if not page.more and not _recovering(database):
            rounds += 1
            if rounds < MOST_ROUNDS and _overtaken(database):
                continue
            records += tried_again.after_a_page(database, remote, arrived, now=clock.now(), arriving=arriving)
            refill.refill(database, remote, now=clock.now())
            suspicion.settle(database, remote, clock=clock, context=context)
            records += catch_up(database, remote, clock=clock, context=context, limit=limit, arriving=arriving)
            return Received(records=records, position=page.position, offered=offered)


def _recover(
    database: Database, remote: Remote, *, clock: Clock, context: Context, limit: int, arriving: Arriving
) -> tuple[int, int]:
    """What a recovery has to do before the next page. Returns how many records were deleted, and how many changes are
    offered anew."""
    step = _recovering(database)
    if step == "sweep":
        return sweep.sweep(database, now=clock.now(), arriving=arriving), 0
    if step in restored.STEPS:
        return 0, restored.go_on(database, remote, clock=clock, context=context, limit=limit, arriving=arriving)
    return 0, 0


def _recovering(database: Database) -> str:
    with database.reading() as connection:
        return checkpoint.read(connection).recovering


def _overtaken(database: Database) -> bool:
    with database.reading() as connection:
        return bool(outbox.overtaken(connection, 1))


def _check_hold(database: Database, now: int) -> None:
    with database.reading() as connection:
        endpoint.check(connection, now)


def _cursor(database: Database) -> str:
    with database.reading() as connection:
        tables.checked(connection)
        return checkpoint.read(connection).fetched


def _take(
    database: Database,
    remote: Remote,
    since: str,
    page: Page,
    beneath: Under,
    *,
    arriving: Arriving,
    brought: Brought,
    asked_at: int,
    now: int,
) -> int:
    """Stage the page, or apply it with what is staged before it, over what is laid under it. Returns how many
    records were touched."""
    with database.writing() as connection:
        checkpoint.hold(connection)
        tracked = tables.checked(connection)
        known = checkpoint.read(connection)
        recover.check_is_oneself(known, remote)
        if known.fetched != since:
            return 0
        page.records = list(upgrades.under_present_names([one.table for one in tracked], page.records))
        brought(connection, [*page.records, *beneath.records])
        clock_guard.measure(connection, server_now=page.now, asked_at=asked_at, answered_at=now)
        if page.more and _fits(connection, known, page, most=MOST_TOGETHER if database.sqlite else None):
            stage.keep(connection, page.records)
            checkpoint.staged(connection, page, since=since)
            return 0
        come = [*page.records, *beneath.records]
        arriving(connection, stage.tables(connection) | {record.table for record in come})
        shapes = [one.table for one in tracked]
        before, misfits = under.lay(connection, tracked, beneath, known, page, now=now)
        touched, refused = _apply(connection, tracked, page, staged=bool(known.staged_cursor), now=now)
        aside.keep_all(connection, refused, now=now)
        blocks.turn(connection, shapes, now=now)
        conflicts.passed(connection, page.position)
        outbox.forget_passed(connection, page.position)
        unseen.forget_settled(connection, shapes)
        conflicts.forget_decided(connection, now)
        checkpoint.pulled(connection, page, since=known.cursor, now=now)
        recover.note(connection, known, page)
    if before + touched:
        emit("pull.applied", records=before + touched)
    if misfits or refused:
        emit("pull.set_aside", records=misfits + len(refused))
    return before + touched


def _fits(connection: Connection, known: checkpoint.Checkpoint, page: Page, *, most: int | None) -> bool:
    """Whether the round may still turn out to be one that is applied together."""
    if most is None:
        return True
    if not known.staged_cursor and page.head - page.position > most:
        return False
    return stage.count(connection) + len(page.records) <= most


def _apply(
    connection: Connection, tracked: Sequence[Tracked], page: Page, *, staged: bool, now: int
) -> tuple[int, list[tuple[Record, str]]]:
    shapes, ours = [one.table for one in tracked], Ours(connection, tracked)
    if not staged:
        return _lay(connection, shapes, ours, page.records, page.position, now=now)
    stage.keep(connection, page.records)  # a record that came before comes as it is now
    touched, refused = 0, list[tuple[Record, str]]()
    for records in stage.waiting(connection):
        some, others = _lay(connection, shapes, ours, records, page.position, now=now)
        touched, refused = touched + some, refused + others
    return touched, refused


def _lay(
    connection: Connection, shapes: Sequence[Table], ours: Ours, records: Sequence[Record], position: int, *, now: int
) -> tuple[int, list[tuple[Record, str]]]:
    """Into the app's tables, but for what is withheld; a record that was withheld until now may be among them, too."""
    parts = apart(connection, ours, records, now=now)
    before, others = apply_what_fits(connection, shapes, parts.released, position) if parts.released else (0, [])
    touched, refused = apply_what_fits(connection, shapes, parts.records, position)
    return before + touched, others + refused
