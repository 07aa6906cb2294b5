"""A batch of a push: which changes a lane may claim, and how they are sent."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

from msgspec import UNSET, Raw
from sqlalchemy import Connection

from backhaul.clock import stamp_to_text
from backhaul.database import Database
from backhaul.remotes import endpoint
from backhaul.replica import (
    attachments,
    awaiting,
    backfill,
    checkpoint,
    conflicts,
    deltas,
    dependents,
    holding,
    lanes,
    outbox,
    tables,
    unseen,
)
from backhaul.replica.footprint import Free, Tables
from backhaul.replica.lanes import Lane
from backhaul.replica.outbox import Change
from backhaul.replica.pacing import Pacer
from backhaul.replica.tables import Tracked
from backhaul.statements import on_postgresql
from backhaul.wire import OutgoingOp

LEASE_MS = 120_000  # well over the longest a remote may take to answer


class Unheard(Exception):
    """The server has lost something, and it is not known yet what of the aggregates goes with what waits: the pull
    finds that out."""


def free_for(connection: Connection, lane: Lane, tracked: Sequence[Tracked]) -> Free | None:
    """What the lane may take; None where there is no other."""
    if not on_postgresql(connection):
        return None
    elsewhere = lanes.elsewhere(connection, lane.number)
    if lane.of == 1 and elsewhere is not None and not elsewhere.changes:
        return None
    return Free(Tables(tracked), lane.number, elsewhere)


def claim(database: Database, lane: Lane, pacer: Pacer, *, now: int, limit: int) -> list[Change]:
    """Raises Unheard."""
    with database.writing() as connection:
        checkpoint.hold(connection)
        tracked = tables.checked(connection)
        endpoint.check(connection, now)
        if any(one.table.aggregate for one in tracked) and checkpoint.read(connection).compares:
            raise Unheard
        checkpoint.clear_stale_mark(connection)
        limit, most_bytes = pacer.room(connection, limit)
        merged = deltas.tables_with_deltas(one.table for one in tracked)
        free = free_for(connection, lane, tracked)
        while True:
            try:
                if merged:
                    rows = outbox.next_pending(connection, limit, most_bytes, free=free)
                    deltas.park_unusable(connection, merged, rows, now=now)
                _park_dependents(connection, tracked, free, now=now, limit=limit, most_bytes=most_bytes)
                return outbox.claim(
                    connection,
                    now=now,
                    limit=limit,
                    lease_ms=LEASE_MS,
                    most_bytes=most_bytes,
                    freeze=partial(deltas.freeze, connection, merged) if merged else None,
                    lane=lane.number,
                    free=free,
                    again_only=lane.number >= lane.of,
                )
            except outbox.GroupTooLarge as found:
                outbox.park_group(connection, found.first, reason="group-too-large", detail=str(found), now=now)


def _park_dependents(
    connection: Connection, tracked: Sequence[Tracked], free: Free | None, *, now: int, limit: int, most_bytes: int
) -> None:
    """Look at what the claim would take until it takes nothing that waits for a file, or that depends on that, on a
    parked change or on a conflict."""
    while _any_held_back(connection) and (rows := outbox.next_pending(connection, limit, most_bytes, free=free)):
        ids = [row.id for row in rows]
        holding.unsee(connection, tracked, first=min(ids), last=max(ids))
        causes = dependents.find(connection, tracked, first=min(ids), last=max(ids))
        if causes:
            outbox.park_dependents(connection, causes, now=now)
        elif awaiting.any_waits(connection) and awaiting.hold(connection, tracked, first=min(ids), last=max(ids)):
            continue
        elif not holding.hold_pending(connection, tracked, now=now, first=min(ids), last=max(ids)):
            return


def _any_held_back(connection: Connection) -> bool:
    waits = outbox.any_set_aside(connection) or attachments.any_together(connection)
    return waits or conflicts.any_live(connection) or unseen.any_(connection)


def outgoing(database: Database, changes: Sequence[Change]) -> tuple[list[OutgoingOp], str]:
    """And the replica whose ops they are."""
    with database.reading() as connection:
        known = checkpoint.read(connection)
        unsent = frozenset(backfill.remaining(connection))
    return [_outgoing(change, known.former_id, unsent) for change in changes], known.replica


def _outgoing(change: Change, former_id: int, unsent: Collection[str]) -> OutgoingOp:
    """unsent: the tables that the backfill has yet to send."""
    number, op_id, group, table, key, kind, fields, base, seq, hlc, _, _, again = change
    # The server may have it from before a recovery: it was here then, or a person has it sent again, who may have been
    # asked before, too.
    former = number <= former_id or (former_id > 0 and bool(again))
    said = UNSET if fields is None or kind == "delete" else Raw(fields)
    early = kind == "update" and table in unsent
    return OutgoingOp(op_id, seq, table, Raw(key), kind, stamp_to_text(hlc), base, group, said, former, early)
