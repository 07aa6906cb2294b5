"""What a server that was put back to a backup has lost, and this replica has: it is offered anew.

Everything that the server has is fetched, and held against the rows that are here, before anything that it says is
applied. Where they differ, the server has lost something, or was told something new since. Ours goes to the outbox as a
change of this replica, with the highest stamp that its rows had when it heard of the loss: so it wins over what the
backup holds, it loses against what was written since, and of two replicas the one that had seen more wins. What stands
in the end comes with the pull that follows, which goes on from the last position that both have in common.

A record that is there and not here was deleted here, if nobody has written it since; otherwise it comes back, whole,
from what was fetched: the pull tells of what was written alone. Of a record that was withheld with its aggregate
nothing is offered but what the server does not have at all: its row is not what this replica knew of it.

Rows are looked at without a lock, and offered in small transactions; whatever waits of a record already goes before.
What is of one aggregate is offered as one (grouping.py), together with what waits of it (joining.py), and what a person
decides about apart (differences.py).
Where it cannot be told what is lost and what was deleted, for deletions are forgotten since (there is no cursor to go
on from), no more is offered than what belongs to aggregates of which something waits, with that: what the server knows
of as this replica's own it takes for seen, and others may have changed it in the past that is lost.

Counters, sets, texts and the like are left as the server has them, and become that here, under what waits: two replicas
that both offered what they add would add it twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import Refused
from backhaul.remotes.base import Remote
from backhaul.replica import aside, checkpoint, grouping, joining, paging, renumbering, stage, tables
from backhaul.replica import rows as app_rows
from backhaul.replica.apart import Ours, apart
from backhaul.replica.apply import apply_what_fits
from backhaul.replica.arriving import Arriving
from backhaul.replica.context import Context
from backhaul.replica.differences import key_of
from backhaul.replica.grouping import Group
from backhaul.replica.renumbering import Offer
from backhaul.replica.tables import Tracked
from backhaul.telemetry import emit
from backhaul.wire import Record

STEPS = ("restored", "offer")


def go_on(database: Database, remote: Remote, *, clock: Clock, context: Context, limit: int, arriving: Arriving) -> int:
    """These steps of a recovery. Returns how many changes are offered."""
    while _step(database) == "restored":
        context.check()
        _fetch(database, remote, limit, now=clock.now())
    return _offer_all(database, clock=clock, context=context, arriving=arriving) if _step(database) == "offer" else 0


def _step(database: Database) -> str:
    with database.reading() as connection:
        return checkpoint.read(connection).recovering


def _fetch(database: Database, remote: Remote, limit: int, *, now: int) -> None:
    with database.reading() as connection:
        since = checkpoint.read(connection).staged_cursor
    try:
        page = paging.alone(database, limit, lambda asked: remote.pull(since, asked), now=now)
    except Refused as refusal:
        if refusal.status != 410 or not since:
            raise
        with database.writing() as connection:
            checkpoint.hold(connection)
            stage.clear(connection)
            checkpoint.compared(connection, since=since, cursor="")
        return
    with database.writing() as connection:
        checkpoint.hold(connection)
        known = checkpoint.read(connection)
        if known.recovering == "restored" and known.staged_cursor == since:
            stage.keep(connection, page.records)
            checkpoint.compared(connection, since=since, cursor=page.cursor if page.more else "")
            if not page.more:
                checkpoint.recover(connection, "offer")


def _offer_all(database: Database, *, clock: Clock, context: Context, arriving: Arriving) -> int:
    offered = 0
    with database.reading() as connection:
        known = checkpoint.read(connection)
        tracked = tables.checked(connection)
        for groups in grouping.groups(connection, tracked, known, context):
            offered += _settle(database, tracked, groups, known, now=clock.now(), arriving=arriving)
    with database.writing() as connection:
        checkpoint.hold(connection)
        if checkpoint.read(connection).recovering == "offer":
            stage.clear(connection)
            checkpoint.recover(connection, "" if known.cursor else "late")
    emit("replica.recovered", deleted=0, offered=offered)
    return offered


def _settle(
    database: Database,
    tracked: Sequence[Tracked],
    groups: Sequence[Group],
    known: checkpoint.Checkpoint,
    *,
    now: int,
    arriving: Arriving,
) -> int:
    """Offer what the server has lost; take what it has otherwise, and nobody offers. Returns how many are offered."""
    shapes = [one.table for one in tracked]
    with database.writing() as connection:
        checkpoint.hold(connection)
        here = checkpoint.read(connection)
        if here.recovering != "offer":
            return 0
        groups = groups if here.cursor else _of_what_waits(connection, tracked, groups)
        theirs = [said for group in groups for said in group.said if isinstance(said, Record)]
        places = [(said.table, key_of(said)) for group in groups for said in group.said]
        app_rows.hold_all(connection, shapes, places)
        joined = joining.join(connection, tracked, groups, now=now)
        offered = renumbering.offer(connection, joined.offered, hlc=known.common_hlc, now=now)
        renumbering.gather(connection, joined.ours)
        if theirs:
            arriving(connection, frozenset(record.table for record in theirs))
            # After that: what is of an aggregate that is offered otherwise is withheld
            fit = apart(connection, Ours(connection, tracked), theirs, now=now)
            _, refused = apply_what_fits(connection, shapes, [*fit.released, *fit.records], here.position)
            aside.keep_all(connection, refused, now=now)
        return offered


def _of_what_waits(connection: Connection, tracked: Sequence[Tracked], groups: Sequence[Group]) -> list[Group]:
    """What is offered of aggregates of which a change of ours waits. (What is otherwise there comes with the pull.)"""
    ours = Ours(connection, tracked)
    busy = set(ours.waiting({root for group in groups for root in group.roots}).values()) if ours.any() else set()
    found = [group for group in groups if not busy.isdisjoint(group.roots)]
    return [group._replace(said=[one for one in group.said if isinstance(one, Offer)]) for group in found]
