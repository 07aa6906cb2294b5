"""Work that waits for other work: in which state it is born, what unblocks it, and what it shares the fate of.

On PostgreSQL whoever changes several rows holds them first, in the order of their ids: two who do so at once wait for
each other and do not meet crosswise. Two parents that end at the same time meet at their child: the second one looks
after the first has committed, and so one of them sees both ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from sqlalchemy import CTE, ColumnElement, Connection, and_, case, exists, func, not_, select, update

from backhaul.errors import Misused, Unknown
from backhaul.schema import work as table
from backhaul.schema import work_parent as edge
from backhaul.statements import on_postgresql
from backhaul.work.ledger.asking import among
from backhaul.work.row import NEVER, State

Parents = Mapping[str, Sequence[str]]


def born(parents: Parents, born_ended: Mapping[str, State], standing: Mapping[str, State]) -> dict[str, State]:
    """The state in which each of these new works is born. born_ended: those that are born finished whatever they wait
    for. standing: of parents that are in the ledger already. Raises Misused for a circle."""
    try:
        order = list(TopologicalSorter(parents).static_order())
    except CycleError as error:
        circle = " <- ".join(error.args[1])
        raise Misused(f"these works wait for each other in a circle: {circle}", hint="take one step out") from None
    states: dict[str, State] = {**standing}
    for work_id in order:
        if work_id in parents:
            states[work_id] = born_ended.get(work_id) or _after([states[parent] for parent in parents[work_id]])
    return {work_id: states[work_id] for work_id in parents}


def _after(states: Sequence[State]) -> State:
    if "FAILED" in states:
        return "FAILED"
    if "CANCELLED" in states:
        return "CANCELLED"
    return "ENQUEUED" if all(state == "SUCCEEDED" for state in states) else "BLOCKED"


def attach(connection: Connection, parent_ids: Sequence[str]) -> dict[str, State]:
    """Say of these that something waits for them from now on; returns their states, which cannot change before this
    transaction ends. Raises Unknown, and Misused for periodic work."""
    if not parent_ids:
        return {}
    hold(connection, among(connection, table.c.id, parent_ids))
    statement = update(table).where(among(connection, table.c.id, parent_ids)).values(children=1)
    rows = connection.execute(statement.returning(table.c.id, table.c.state, table.c.interval_ms)).all()
    missing = sorted(set(parent_ids).difference(row.id for row in rows))
    if missing:
        raise Unknown(f"there is no work {missing[0]!r} to wait for", hint="enqueue the chain whole, or under a name")
    periodic = [row.id for row in rows if row.interval_ms]
    if periodic:
        raise Misused(f"the work {periodic[0]!r} is periodic: it never succeeds", hint="wait for one-time work")
    return {row.id: row.state for row in rows}


def unblock(connection: Connection, parent_id: str, now: int) -> int:
    """Let begin to wait for its time what waited for this alone, or for this as the last. Returns how many."""
    children = select(edge.c.work_id).where(edge.c.parent_id == parent_id)
    hold(connection, table.c.id.in_(children))
    parent = table.alias("parent")
    other = select(1).join(parent, parent.c.id == edge.c.parent_id).select_from(edge)
    unfinished = exists(other.where(edge.c.work_id == table.c.id, parent.c.state != "SUCCEEDED"))
    due = now + table.c.initial_delay_ms
    freed = (
        update(table)
        .where(table.c.state == "BLOCKED", table.c.id.in_(children), ~unfinished)
        .values(
            state="ENQUEUED",
            enqueued_at=now,
            due_at=case(
                (table.c.trigger_update_ms.is_not(None), NEVER),
                (table.c.begin_at > due, table.c.begin_at),
                else_=due,
            ),
            rung_at=0,
        )
    )
    return connection.execute(freed).rowcount


def fail_dependents(connection: Connection, parent_ids: Sequence[str], now: int) -> None:
    """Fail all that waits for one of these, and for that, and so on: it will never run."""
    of = select(edge.c.parent_id.label("root"), edge.c.work_id.label("id")).where(
        among(connection, edge.c.parent_id, parent_ids)
    )
    found = of.cte("of", recursive=True)
    found = found.union(select(found.c.root, edge.c.work_id).join(found, edge.c.parent_id == found.c.id))
    doomed = select(found.c.id, func.min(found.c.root).label("root")).group_by(found.c.id).subquery("doomed")
    statement = update(table).where(table.c.id == doomed.c.id, table.c.state == "BLOCKED")
    why = "it waited for " + doomed.c.root + ", which failed"
    connection.execute(statement.values(state="FAILED", finished_at=now, last_error=why))


def with_dependents(these: ColumnElement[bool]) -> CTE:
    """The ids of these rows, of all that waits for them, of what waits for that, and so on."""
    found = select(table.c.id).where(these).correlate(None).cte("found", recursive=True)
    return found.union(select(edge.c.work_id).join(found, edge.c.parent_id == found.c.id))


def hold(connection: Connection, these: ColumnElement[bool], *, and_dependents: bool = False) -> None:
    """Keep others from changing these rows until the transaction ends. SQLite has one writer anyway."""
    if not on_postgresql(connection):
        return
    wanted: Any = table.c.id.in_(select(with_dependents(these).c.id)) if and_dependents else these
    held = select(table.c.id).where(wanted, table.c.finished_at.is_(None))
    rows = held.order_by(table.c.id).with_for_update().subquery()
    connection.scalar(select(func.count()).select_from(rows))  # and not the rows: there may be many


def held_whole(connection: Connection, ids: Sequence[str]) -> list[str]:
    """Those of which nobody else holds anything that waits for them; all of that is held from now on."""
    if not ids or not on_postgresql(connection):
        return list(ids)
    of = select(table.c.id.label("root"), table.c.id.label("id")).where(among(connection, table.c.id, ids))
    found = of.cte("of", recursive=True)
    found = found.union(select(found.c.root, edge.c.work_id).join(found, edge.c.parent_id == found.c.id))
    unfinished = and_(table.c.id.in_(select(found.c.id)), table.c.finished_at.is_(None))
    held = select(table.c.id).where(unfinished).order_by(table.c.id).with_for_update(skip_locked=True)
    own = list(connection.scalars(held))
    others = select(found.c.root).join(table, table.c.id == found.c.id).where(table.c.finished_at.is_(None))
    not_whole = set(connection.scalars(others.where(not_(among(connection, table.c.id, own))).distinct()))
    return [one for one in ids if one not in not_whole]
