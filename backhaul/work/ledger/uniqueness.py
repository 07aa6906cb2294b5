"""Names: what becomes of the work that has the name already, and of the new.

Two who enqueue under one name at once come one after the other: SQLite has one writer, and on PostgreSQL they take a
lock of the name that lasts as long as their transactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from sqlalchemy import Connection, and_, delete, exists, or_, select, update

from backhaul.errors import Misused
from backhaul.schema import work as table
from backhaul.schema import work_parent, work_tag, work_trigger
from backhaul.statements import on_postgresql
from backhaul.work.ledger.asking import among, by_name, existing
from backhaul.work.ledger.enqueueing import ORDINARY, Circumstances, Entry, enqueue_all, take_turn
from backhaul.work.ledger.holding import hold_word
from backhaul.work.ledger.interfering import cancel_by_name
from backhaul.work.ledger.updating import update_existing
from backhaul.work.request import WorkRequest
from backhaul.work.row import Work

Policy = Literal["keep", "replace", "update"]
OneTimePolicy = Literal["keep", "replace", "append", "append_or_replace"]
PeriodicPolicy = Literal["keep", "update", "cancel_and_reenqueue"]
REPLACED = "work of the same name"


@dataclass(frozen=True, kw_only=True)
class Enqueued:
    """ids: of the work that is there now. kept: it was there before, and nothing new was stored."""

    ids: tuple[str, ...]
    kept: bool = False


def enqueue_unique(connection: Connection, request: WorkRequest, *, queue: str, policy: Policy, now: int) -> Work:
    """For sync's own work: keep it unless its name is taken; by unfinished work, the policy decides.

    keep: the old one stays, and is returned. replace: the old one is cancelled (CANCELLED_BY_APP) and loses its name.
    update: the old one keeps id, state, attempt and times, takes everything else from the request, and is a new
    generation, unless nothing is different; a run that is under way ends as it began. Finished work makes room.
    Raises Misused for a request without a name, and for an update from one-time to periodic work or back.
    """
    if request.name is None:
        raise Misused("unique work needs a name", hint="WorkRequest(..., name='...')")
    hold_name(connection, request.name)
    old = by_name(connection, request.name)
    if old is not None and not old.finished and policy == "keep":
        return old
    if old is not None and not old.finished and policy == "update":
        return update_existing(connection, old, request, queue=queue, now=now, even_if_same=False)
    entry = Entry(request, queue)
    circumstances = make_room(connection, request.name, [entry], ORDINARY, now=now)
    enqueue_all(connection, [entry], now=now, name=request.name, circumstances=circumstances)
    return existing(connection, str(request.id))


def enqueue_named(
    connection: Connection,
    name: str,
    policy: OneTimePolicy,
    entries: Sequence[Entry],
    *,
    now: int,
    circumstances: Circumstances = ORDINARY,
) -> Enqueued:
    """One-time work, or a whole chain of it, under a name.

    keep: nothing is stored while work of the name waits for its time or runs. replace: it is cancelled. append: the new
    waits for all of that name that nothing waits for yet, and is born failed or cancelled if that has; so it does with
    append_or_replace, unless that has failed or was cancelled: then it is as with replace.
    """
    if policy not in get_args(OneTimePolicy):
        raise Misused(f"there is no policy {policy!r}", hint=f"one of {', '.join(get_args(OneTimePolicy))}")
    hold_name(connection, name)
    take_turn(connection, [entry.request for entry in entries], circumstances)
    if policy == "keep":
        active = _active(connection, name)
        if active:
            return Enqueued(ids=active, kept=True)
    if policy.startswith("append"):
        leaves = _leaves(connection, name)
        dead = any(state in ("FAILED", "CANCELLED") for state in leaves.values())
        if leaves and not (dead and policy == "append_or_replace"):
            after = [entry if entry.parents else replace(entry, parents=tuple(leaves)) for entry in entries]
            enqueue_all(connection, after, now=now, name=name, circumstances=circumstances)
            return Enqueued(ids=_ids(entries))
    made_room = make_room(connection, name, entries, circumstances, now=now)
    enqueue_all(connection, entries, now=now, name=name, circumstances=made_room)
    return Enqueued(ids=_ids(entries))


def enqueue_named_periodic(
    connection: Connection,
    name: str,
    policy: PeriodicPolicy,
    entry: Entry,
    *,
    now: int,
    circumstances: Circumstances = ORDINARY,
) -> Enqueued:
    """Periodic work under a name. update: the old one keeps its id, and the new one's id is not used.

    Raises Misused for an update of what is no single periodic work.
    """
    if policy not in get_args(PeriodicPolicy):
        raise Misused(f"there is no policy {policy!r}", hint=f"one of {', '.join(get_args(PeriodicPolicy))}")
    hold_name(connection, name)
    take_turn(connection, [entry.request], circumstances)
    if policy == "keep":
        active = _active(connection, name)
        if active:
            return Enqueued(ids=active, kept=True)
    if policy == "update":
        found = connection.execute(select(table.c.id, table.c.state, table.c.interval_ms).where(table.c.name == name))
        rows = found.all()
        if len(rows) > 1 or (rows and not rows[0].interval_ms):
            raise Misused(
                f"the name {name!r} is of one-time work, or of a chain", hint="another name, or cancel_and_reenqueue"
            )
        if rows and rows[0].state != "CANCELLED":
            old = existing(connection, rows[0].id)
            request, queue = entry.request, entry.queue
            update_existing(connection, old, request, queue=queue, now=now, circumstances=circumstances)
            return Enqueued(ids=(old.id,))
    made_room = make_room(connection, name, [entry], circumstances, now=now)
    enqueue_all(connection, [entry], now=now, name=name, circumstances=made_room)
    return Enqueued(ids=_ids([entry]))


def make_room(
    connection: Connection, name: str, entries: Sequence[Entry], circumstances: Circumstances, *, now: int
) -> Circumstances:
    """End what has the name, and take the name from it: its rows stay, to be read. (WorkManager deletes them; here only
    those go whose ids the new work has itself.)"""
    cancel_by_name(connection, name, now=now, by=REPLACED)
    again = and_(table.c.name == name, among(connection, table.c.id, _ids(entries)))
    rows = connection.execute(select(table.c.id, table.c.generation, table.c.fence).where(again)).all()
    if rows:
        ids = [row.id for row in rows]
        for column in (work_tag.c.work_id, work_trigger.c.work_id, work_parent.c.work_id, table.c.id):
            connection.execute(delete(column.table).where(among(connection, column, ids)))
    connection.execute(update(table).where(table.c.name == name).values(name=None))
    return replace(circumstances, reborn={row.id: (row.generation + 1, row.fence + 1) for row in rows})


def hold_name(connection: Connection, name: str) -> None:
    """Until the transaction ends, nobody else enqueues under this name."""
    hold_word(connection, f"name {name}")


def _active(connection: Connection, name: str) -> tuple[str, ...]:
    waiting = or_(table.c.state == "ENQUEUED", table.c.state == "RUNNING")
    return tuple(connection.scalars(select(table.c.id).where(table.c.name == name, waiting).order_by(table.c.id)))


def _leaves(connection: Connection, name: str) -> dict[str, str]:
    """The ids and states of what nothing waits for, in the order of their ids where they were made together. They are
    held: what is finished could be pruned before something is appended to it."""
    waited_for = exists(select(1).where(work_parent.c.parent_id == table.c.id))
    these = and_(table.c.name == name, ~waited_for)
    if on_postgresql(connection):
        held = select(table.c.id).where(these).order_by(table.c.id).with_for_update(of=table)
        these = among(connection, table.c.id, list(connection.scalars(held)))
    found = select(table.c.id, table.c.state).where(these).order_by(table.c.created_at, table.c.id)
    return {row.id: row.state for row in connection.execute(found)}


def _ids(entries: Sequence[Entry]) -> tuple[str, ...]:
    return tuple(str(entry.request.id) for entry in entries)
