"""When ENQUEUED work is due, whether the bell was rung for it, and what makes it due now."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Text, Update, case, cast, literal, literal_column, or_, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from backhaul.schema import work as table
from backhaul.statements import on_postgresql, run
from backhaul.work.ledger.asking import among, one
from backhaul.work.ledger.holding import free
from backhaul.work.row import NEVER, Work, work_from_row

# Each part walks ix_backhaul_work_unrung within one queue, in its order, and stops at the limit: the queues that are
# closed, or have messages enough, cost nothing, however much waits in them. (SQLite has to be told which index.)
_PART = """
    SELECT id, expedited, due_at FROM (
        SELECT id, expedited, due_at FROM backhaul_work {by_index}
        WHERE state = 'ENQUEUED' AND queue = ? AND expedited = {expedited} AND {rung} AND due_at <= ?
        ORDER BY {order} LIMIT ?
    ) AS {name}
"""
_DUE = """
    SELECT * FROM backhaul_work WHERE id IN (
        SELECT id FROM ({parts}) AS found ORDER BY expedited DESC, due_at, id LIMIT ?
    ) ORDER BY expedited DESC, due_at, id
"""
_SOONEST = """
    SELECT due_at FROM (
        SELECT due_at FROM backhaul_work {by_index}
        WHERE state = 'ENQUEUED' AND queue = ? AND expedited = {expedited} AND {rung} AND due_at > ? AND due_at < ?
        ORDER BY due_at LIMIT 1
    ) AS {name}
"""
_HAS_RUNG = """
    SELECT CAST(? AS text) AS queue WHERE EXISTS (
        SELECT 1 FROM backhaul_work {by_index}
        WHERE state = 'ENQUEUED' AND queue = ? AND expedited = {expedited} AND {rung} AND due_at <= ?
    )
"""
_QUEUES = """
    WITH RECURSIVE waiting (queue) AS (
        SELECT min(queue) FROM backhaul_work {by_index} WHERE state = 'ENQUEUED'
        UNION ALL
        SELECT (SELECT min(queue) FROM backhaul_work {by_index} WHERE state = 'ENQUEUED' AND queue > waiting.queue)
        FROM waiting WHERE waiting.queue IS NOT NULL
    ) SELECT queue FROM waiting WHERE queue IS NOT NULL
"""
_NEVER_RUNG, _RUNG_BEFORE = "rung_at = 0", "rung_at > 0 AND rung_at <= ?"
LANES = (1, 0)  # expedited, and not
_AS_READ = cast(table.c.fence, Text) + "." + cast(table.c.generation, Text) + "." + table.c.id


def due(
    connection: Connection,
    now: int,
    *,
    ring_again_ms: int,
    limit: int,
    unheard: Collection[str] = (),
    queues: Collection[str] | None = None,
) -> list[Work]:
    """What is due and was not rung lately: expedited work first, then the oldest. Ring for it, then `mark_rung`.

    unheard: queues where no second message is wanted: work of theirs that was rung once is left out, however long ago.
    queues: of these alone; None: of all.
    """
    parts: list[str] = []
    values: list[Any] = []
    for queue in _asked(connection, queues):
        for expedited in LANES:
            spelt = {"by_index": _by_index(connection), "expedited": expedited}
            parts.append(_PART.format(rung=_NEVER_RUNG, order="due_at", name=f"part_{len(parts)}", **spelt))
            values += [queue, now, limit]
            if queue not in unheard:
                parts.append(_PART.format(rung=_RUNG_BEFORE, order="rung_at", name=f"part_{len(parts)}", **spelt))
                values += [queue, now - ring_again_ms, now, limit]
    if not parts:
        return []
    found = run(connection, _DUE.format(parts=" UNION ALL ".join(parts)), (*values, limit))
    return [work_from_row(row) for row in found.mappings()]


def have_rung(connection: Connection, now: int, *, ring_again_ms: int, queues: Collection[str]) -> list[str]:
    """Those of the queues in which work waits that was rung so long ago, and was not run."""
    parts: list[str] = []
    values: list[Any] = []
    for queue in sorted(queues):
        for expedited in LANES:
            parts.append(_HAS_RUNG.format(by_index=_by_index(connection), expedited=expedited, rung=_RUNG_BEFORE))
            values += [queue, queue, now - ring_again_ms, now]
    return sorted(set(run(connection, " UNION ALL ".join(parts), tuple(values)).scalars())) if parts else []


def free_of(connection: Connection, works: Sequence[Work]) -> list[Work]:
    """What no other transaction holds just now: nobody could claim the rest, nor mark it as rung."""
    these = among(connection, table.c.id, [work.id for work in works])
    found = set(connection.scalars(select(table.c.id).where(these, *free(connection, these))))
    return [work for work in works if work.id in found]


def mark_rung(connection: Connection, works: Collection[Work], now: int) -> None:
    """works: as they were read before the bell was rung: one that has been run since, or asked for anew, waits for
    another time, and nobody has rung for that. What another transaction holds is left as it is, and is rung for again.
    """
    if works:
        as_read = among(connection, _AS_READ, [f"{work.fence}.{work.generation}.{work.id}" for work in works])
        # SQLite would rather walk all that waits than the few ids; the plus keeps it off that index.
        state = table.c.state if on_postgresql(connection) else literal_column("+backhaul_work.state")
        these = among(connection, table.c.id, [work.id for work in works]) & (state == "ENQUEUED") & as_read
        connection.execute(update(table).where(these, *free(connection, these)).values(rung_at=now))


def _asked(connection: Connection, queues: Collection[str] | None) -> Sequence[str]:
    if queues is not None:
        return sorted(queues)
    return run(connection, _QUEUES.format(by_index=_by_index(connection))).scalars().all()


def _by_index(connection: Connection) -> str:
    return "" if on_postgresql(connection) else "INDEXED BY ix_backhaul_work_unrung"


def next_due_at(connection: Connection, now: int, *, queues: Collection[str] | None = None) -> int | None:
    """When the next waiting work becomes due, later than now. queues: in these; None: in any."""
    parts: list[str] = []
    values: list[Any] = []
    for queue in _asked(connection, queues):
        for expedited in LANES:
            spelt = {"by_index": _by_index(connection), "expedited": expedited, "name": f"part_{len(parts)}"}
            parts.append(_SOONEST.format(rung=_NEVER_RUNG, **spelt))
            values += [queue, now, NEVER]
    if not parts:
        return None
    soonest: int | None = run(
        connection,
        f"SELECT min(due_at) FROM ({' UNION ALL '.join(parts)}) AS found",  # noqa: S608 - nothing but our own words
        tuple(values),
    ).scalar()
    return soonest


def wake(connection: Connection, work_id: str, now: int, *, force: bool = False) -> Work | None:
    """Make waiting work due now, unless it is backing off (force: even then). None when it did not apply.

    Periodic work that is running will be due again as soon as this period closes: what the wake was for may have come
    after the run looked. That too returns None, for there is nothing to ring for yet.
    """
    woken = one(connection, _pull_to_now(work_id, now, force=force))
    if woken is None:
        connection.execute(_run_again(work_id, now))
    return woken


def _pull_to_now(work_id: str, now: int, *, force: bool) -> ReturningUpdate[Any]:
    due = table.c.due_at
    return (
        update(table)
        .where(table.c.id == work_id, table.c.state == "ENQUEUED")
        .where(or_(table.c.attempt == 0, due <= now, literal(force)))
        .values(due_at=case((due < now, due), else_=now))
        .returning(table)
    )


def _run_again(work_id: str, now: int) -> Update:
    # While work runs its due time has no other use; one later than its start says: once more (see _close_period).
    started = table.c.started_at
    return (
        update(table)
        .where(table.c.id == work_id, table.c.state == "RUNNING", table.c.interval_ms > 0)
        .values(due_at=case((started >= now, started + 1), else_=now))
    )
