"""ENQUEUED -> RUNNING: one statement, made once, for making it costs as much as executing it.

On PostgreSQL a claim does not wait for what another transaction holds. An app may hold work as long as it likes, and
the work is claimed after that; but whoever has just rung for it marks it at the same moment as its message arrives, and
for that a claim has a quarter of a second.

The same statement says whether anything that all work implies was said to be off (a pause): so a claim that is to be
judged for it is, and a plain one costs no statement more.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, or_, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from backhaul.database import translated
from backhaul.errors import DatabaseBusy
from backhaul.schema import work as table
from backhaul.statements import on_postgresql
from backhaul.work.conditions import implied_is_off
from backhaul.work.ledger.running import UNCLAIMED
from backhaul.work.row import Work, work_from_row

PATIENCE_MS = 250

_now = bindparam("now", type_=BigInteger)
_CLAIMABLE = (
    table.c.id == bindparam("the_id"),
    table.c.generation == bindparam("the_generation"),
    table.c.state == "ENQUEUED",
    table.c.due_at <= _now,
    or_(table.c.expires_at.is_(None), table.c.expires_at > _now, table.c.attempt > 0),
)
_OF_QUEUE = table.c.queue == bindparam("the_queue")


def _claim(*where: Any) -> ReturningUpdate[Any]:
    return (
        update(table)
        .where(*where)
        .values(UNCLAIMED)
        .values(
            state="RUNNING",
            attempt=table.c.attempt + 1,
            fence=table.c.fence + 1,
            node=bindparam("the_node"),
            worker=bindparam("the_worker"),
            process=bindparam("the_process"),
            started_at=_now,
            started_before=table.c.started_at,
            lease_until=bindparam("the_lease_until"),
            stop_reason=None,
            stopped_before=table.c.stop_reason,
        )
        .returning(table, implied_is_off().label("implied_is_off"))
    )


_WHERE = {False: _CLAIMABLE, True: (*_CLAIMABLE, _OF_QUEUE)}  # by whether a queue is said
_FREE = select(table.c.id).where(table.c.id == bindparam("the_id")).correlate(None).with_for_update(skip_locked=True)
_CLAIM = {queued: _claim(*where) for queued, where in _WHERE.items()}
_CLAIM_FREE = {queued: _claim(*where, table.c.id == _FREE.scalar_subquery()) for queued, where in _WHERE.items()}
_THERE = {queued: select(table.c.id).where(*where) for queued, where in _WHERE.items()}


def claim(
    connection: Connection,
    work_id: str,
    generation: int,
    *,
    worker: str,
    now: int,
    lease_ms: int,
    queue: str | None = None,
    node: str = "",
    process: int | None = None,
) -> Work | None:
    """Take the work for a run. node, process: whose worker it is, and the pid that is to run it, if that is known:
    losing.py looks for them. None when it is not waiting, not due, expired, of another generation or queue, or in the
    hands of another transaction."""
    return claim_and_see(
        connection,
        work_id,
        generation,
        worker=worker,
        now=now,
        lease_ms=lease_ms,
        queue=queue,
        node=node,
        process=process,
    )[0]


def claim_and_see(
    connection: Connection,
    work_id: str,
    generation: int,
    *,
    worker: str,
    now: int,
    lease_ms: int,
    queue: str | None = None,
    node: str = "",
    process: int | None = None,
) -> tuple[Work | None, bool]:
    """As `claim`, and whether anything implied was said to be off when it was claimed."""
    queued = queue is not None
    values = {
        "the_id": work_id,
        "the_generation": generation,
        "the_node": node,
        "the_worker": worker,
        "the_process": process,
        "now": now,
        "the_lease_until": now + lease_ms,
        **({"the_queue": queue} if queued else {}),
    }
    if not on_postgresql(connection):
        return _claimed(connection, _CLAIM[queued], values)
    claimed = _claimed(connection, _CLAIM_FREE[queued], values)
    if claimed[0] is not None or connection.scalar(_THERE[queued], values) is None:
        return claimed
    return _claim_soon(connection, _CLAIM[queued], values)


def _claimed(
    connection: Connection, statement: ReturningUpdate[Any], values: Mapping[str, Any]
) -> tuple[Work | None, bool]:
    row = connection.execute(statement, values).mappings().one_or_none()
    if row is None:
        return None, False
    columns = dict(row)
    is_off = bool(columns.pop("implied_is_off"))
    return work_from_row(columns), is_off


def _claim_soon(
    connection: Connection, statement: ReturningUpdate[Any], values: Mapping[str, Any]
) -> tuple[Work | None, bool]:
    with suppress(DatabaseBusy), translated(), connection.begin_nested():
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {PATIENCE_MS}")
        claimed = _claimed(connection, statement, values)
        connection.exec_driver_sql("SET LOCAL lock_timeout TO DEFAULT")
        return claimed
    return None, False
