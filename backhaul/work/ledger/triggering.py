"""Work that waits for a change of data: what it watches, what has changed, and when it is due for that.

Whoever looks (Beat, a pull) says what there is now: of a table how far the outbox has come, of a file how it looks.
What is not as it was when it was last looked at has changed. Then the work is due once it has been quiet for
`trigger_update_ms`, and no later than `trigger_most_ms` after the first change; its run is told what has changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Text, and_, bindparam, case, cast, delete, func, select, tuple_, update

from backhaul.errors import Misused
from backhaul.schema import work as table
from backhaul.schema import work_trigger as trigger
from backhaul.statements import on_postgresql
from backhaul.work.constraints import FileTrigger, TableTrigger, Trigger
from backhaul.work.ledger.asking import among
from backhaul.work.ledger.holding import free
from backhaul.work.ledger.positions import Move, Position, bounded, here, position
from backhaul.work.row import NEVER

MOST_WAITING = 8  # works with triggers that are unfinished at once, as in WorkManager
COLUMNS = ("work_id", "kind", "what", "descendants", "seen")


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What unfinished work waits for. tables: with how far the outbox was looked at. files: with how they looked then.
    The works that wait for one may have begun to at different times. unfired: some have seen a change, and have not
    been given a time for it: another transaction held them. unanswered: of these files a look has not come back."""

    tables: Mapping[str, frozenset[Position]]
    files: Mapping[FileTrigger, frozenset[str]]
    unfired: bool = False
    unanswered: frozenset[FileTrigger] = frozenset()


def watched(connection: Connection) -> Watched:
    """Everything that is to be looked at."""
    rows = connection.execute(
        select(
            *(trigger.c.kind, trigger.c.what, trigger.c.descendants, trigger.c.seen, trigger.c.last_at),
            trigger.c.unanswered_at,
            and_(_fireable(), table.c.override_at.is_(None), table.c.due_at == NEVER).label("waits"),
        )
        .join(table, table.c.id == trigger.c.work_id)
        .where(table.c.finished_at.is_(None))
    ).all()
    tables: dict[str, frozenset[Position]] = {}
    for row in rows:
        if row.kind == "table":
            tables[row.what] = tables.get(row.what, frozenset()) | {position(row.seen)}
    files: dict[FileTrigger, frozenset[str]] = {}
    for row in rows:
        if row.kind == "file":
            one = FileTrigger(row.what, bool(row.descendants))
            files[one] = files.get(one, frozenset()) | {row.seen}
    unfired = any(row.waits and row.last_at is not None for row in rows)
    unanswered = {FileTrigger(row.what, bool(row.descendants)) for row in rows if row.unanswered_at is not None}
    return Watched(tables=tables, files=files, unfired=unfired, unanswered=frozenset(unanswered))


def touch_tables(
    connection: Connection, moves: Sequence[Move], now: int, *, by_sync: Collection[str] = (), before: int = 0
) -> int:
    """These tables have changed: by the app, as `moves` says; or by sync. before: a number of `positions.number`, if
    there is one. Returns how many works wait for one of them.

    A look of somebody else that was there first stands: what it did not see, the next one sees. What is told by sync is
    told once, and so waits for its turn.
    """
    if not moves and not by_sync:
        return 0
    of_table = trigger.c.kind == "table", trigger.c.what == bindparam("named", type_=Text()), _unfinished()
    held = _hold(connection, "table", {move.table for move in moves} | set(by_sync), wait=bool(by_sync))
    mine = among(connection, trigger.c.work_id, held)
    since, to = bindparam("since", type_=Text()), bindparam("to", type_=Text())
    looked = update(trigger).where(*of_table, mine, trigger.c.seen == since)
    for changed, values in ((True, {"seen": to, **_moved(now)}), (False, {"seen": to})):
        rows = [
            {"named": move.table, "since": move.since.text, "to": bounded(move.to, before).text}
            for move in moves
            if move.changed == changed
        ]
        if rows:
            connection.execute(looked.values(values), rows)
    if by_sync:
        connection.execute(update(trigger).where(*of_table, mine).values(_moved(now)), [{"named": n} for n in by_sync])
    return fire(connection) if by_sync or any(move.changed for move in moves) else 0


def hold_tables(connection: Connection, tables: Collection[str]) -> None:
    """Until the transaction ends, nobody else says anything of those who wait for these tables. It waits for whoever
    does just now, as long as a lock is waited for: what is read after that is as it stays."""
    if on_postgresql(connection):
        _hold(connection, "table", tables, wait=True)


def touch_files(connection: Connection, looks: Mapping[FileTrigger, str], now: int) -> int:
    """These files look like this now. The first look at one is what later ones are held against. Returns how many
    works are due for a change, or will be."""
    rows = [
        {"named": str(one.path), "deep": int(one.descendants), "look": look, "before": look}
        for one, look in looks.items()
    ]
    if not rows:
        return 0
    of_file = (
        trigger.c.kind == "file",
        trigger.c.what == bindparam("named", type_=Text()),
        trigger.c.descendants == bindparam("deep"),
        trigger.c.seen != bindparam("before", type_=Text()),
        _unfinished(),
    )
    first = trigger.c.seen == ""
    moved = {
        "first_at": case((first, trigger.c.first_at), else_=func.coalesce(trigger.c.first_at, now)),
        "last_at": case((first, trigger.c.last_at), else_=now),
        "seen": bindparam("look", type_=Text()),
    }
    held = _hold(connection, "file", {str(one.path) for one in looks}, wait=False)
    connection.execute(update(trigger).where(*of_file, among(connection, trigger.c.work_id, held)).values(moved), rows)
    return fire(connection)


def mark_unanswered(connection: Connection, files: Collection[FileTrigger], since: int | None) -> None:
    """Of these files a look has not come back, says who looks, since then; None: it has."""
    if not files:
        return
    held = _hold(connection, "file", {str(one.path) for one in files}, wait=False)
    these = update(trigger).where(
        trigger.c.kind == "file",
        trigger.c.what == bindparam("named", type_=Text()),
        trigger.c.descendants == bindparam("deep"),
        among(connection, trigger.c.work_id, held),
    )
    rows = [{"named": str(one.path), "deep": int(one.descendants)} for one in files]
    connection.execute(these.values(unanswered_at=since), rows)


def fire(connection: Connection, *, work_ids: Collection[str] | None = None) -> int:
    """Give all waiting work that has seen a change its time, and what to tell its run. Returns how many waits so.

    On PostgreSQL what another transaction holds is left for the next look (`Watched.unfired`): who has triggers in his
    hands never waits for work, and so meets nobody crosswise who has work in his and waits for its triggers.
    """
    of_it = and_(trigger.c.work_id == table.c.id, trigger.c.last_at.is_not(None))
    last = select(func.max(trigger.c.last_at)).where(of_it).scalar_subquery()
    first = select(func.min(trigger.c.first_at)).where(of_it).scalar_subquery()
    quiet, most = last + table.c.trigger_update_ms, first + table.c.trigger_most_ms
    delay = case((table.c.runs > 0, table.c.interval_ms), else_=table.c.initial_delay_ms)
    earliest = table.c.enqueued_at + delay
    at = case((quiet < most, quiet), else_=most)
    later = case((earliest > at, earliest), else_=at)
    these: tuple[Any, ...] = (
        _fireable(),
        table.c.id.in_(select(trigger.c.work_id).where(trigger.c.last_at.is_not(None))),
    )
    if work_ids is not None:
        these = *these, among(connection, table.c.id, work_ids)
    wanted = (
        update(table)
        .where(*these, *free(connection, and_(*these)))
        .values(
            due_at=case(
                (table.c.override_at.is_not(None), table.c.due_at),
                (table.c.begin_at > later, table.c.begin_at),
                else_=later,
            ),
            triggered=_told(connection),
        )
    )
    return connection.execute(wanted).rowcount


def consumed(connection: Connection, work_ids: Collection[str]) -> None:
    """Their runs have ended: only what has changed since these began counts for the next ones."""
    began = select(table.c.started_at).where(table.c.id == trigger.c.work_id).scalar_subquery()
    since = trigger.c.last_at >= began
    first = case((trigger.c.first_at < began, began), else_=trigger.c.first_at)
    of_these = among(connection, trigger.c.work_id, work_ids)
    statement = update(trigger).where(of_these, trigger.c.last_at.is_not(None))
    connection.execute(
        statement.values(first_at=case((since, first), else_=None), last_at=case((since, trigger.c.last_at)))
    )
    fire(connection, work_ids=work_ids)


def check_room(connection: Connection, more: int, most: int) -> None:
    """Raises Misused when there would be more unfinished works with triggers than there may be."""
    waiting = select(func.count(trigger.c.work_id.distinct())).join(table, table.c.id == trigger.c.work_id)
    number = connection.scalar(waiting.where(table.c.finished_at.is_(None))) or 0
    if number + more > most:
        raise Misused(
            f"{number} works wait for a change of data, and {most} may", hint="cancel one, or use one work for several"
        )


def rows_of(
    connection: Connection, watching: Sequence[tuple[str, Sequence[Trigger]]], looks: Mapping[FileTrigger, str]
) -> list[tuple[Any, ...]]:
    """The rows of these works' triggers, as COLUMNS: what happened before now does not count."""
    last = here(connection).text
    rows: list[tuple[Any, ...]] = []
    for work_id, triggers in watching:
        for one in dict.fromkeys(triggers):
            if isinstance(one, TableTrigger):
                rows.append((work_id, "table", one.table, 0, last))
            else:
                rows.append((work_id, "file", str(one.path), int(one.descendants), looks.get(one, "")))
    return rows


def forget_others(connection: Connection, work_id: str, kept: Collection[Trigger]) -> None:
    """Stop watching for this work what is not among these."""
    keys = [
        ("table", one.table, 0) if isinstance(one, TableTrigger) else ("file", str(one.path), int(one.descendants))
        for one in kept
    ]
    gone = delete(trigger).where(trigger.c.work_id == work_id)
    if keys:
        gone = gone.where(tuple_(trigger.c.kind, trigger.c.what, trigger.c.descendants).not_in(keys))
    connection.execute(gone)


def _hold(connection: Connection, kind: str, names: Collection[str], *, wait: bool) -> list[str]:
    """The works whose triggers these are, held in one order until the transaction ends. What somebody else holds just
    now is left out, unless it is to be waited for. (SQLite has one writer.)"""
    these = select(trigger.c.work_id).where(trigger.c.kind == kind, among(connection, trigger.c.what, names))
    held = these.order_by(trigger.c.work_id, trigger.c.kind, trigger.c.what).with_for_update(skip_locked=not wait)
    return list(connection.scalars(held if on_postgresql(connection) else these))


def _fireable() -> Any:
    return and_(table.c.state == "ENQUEUED", table.c.attempt == 0, table.c.trigger_update_ms.is_not(None))


def _moved(now: int) -> dict[str, Any]:
    return {"first_at": func.coalesce(trigger.c.first_at, now), "last_at": now}


def _unfinished() -> Any:
    return trigger.c.work_id.in_(select(table.c.id).where(table.c.finished_at.is_(None)))


def _told(connection: Connection) -> Any:
    """SQL for the JSON list of what has changed, in the order of names."""
    of_it = trigger.c.work_id == table.c.id, trigger.c.last_at.is_not(None)
    names = select(trigger.c.what.label("what")).where(*of_it).order_by(trigger.c.what).correlate(table).subquery()
    if on_postgresql(connection):
        return select(cast(func.json_agg(names.c.what), Text)).scalar_subquery()
    return select(func.json_group_array(names.c.what)).scalar_subquery()
