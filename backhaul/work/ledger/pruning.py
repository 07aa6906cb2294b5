"""What is forgotten, and when."""

from __future__ import annotations

from sqlalchemy import Connection, and_, delete, exists, select

from backhaul.schema import work as table
from backhaul.schema import work_parent, work_tag, work_trigger
from backhaul.statements import on_postgresql
from backhaul.work.ledger.asking import among

AT_ONCE = 10_000


def prune(connection: Connection, *, now: int, older_than_ms: int, limit: int = AT_ONCE) -> int:
    """Forget what finished so long ago, unless unfinished work waits for it; returns how much. No more than the limit
    at once: go on while so much is returned. WorkManager counts from the start, this from the end.

    On PostgreSQL what is to go is held first, and looked at again then: something may have been appended to it.
    """
    child = table.alias("child")
    waits = select(1).join(child, child.c.id == work_parent.c.work_id).select_from(work_parent)
    awaited = exists(waits.where(work_parent.c.parent_id == table.c.id, child.c.finished_at.is_(None)))
    old = select(table.c.id).where(table.c.finished_at <= now - older_than_ms, ~awaited)
    oldest = old.order_by(table.c.finished_at).limit(limit)
    if not on_postgresql(connection):
        ids = list(connection.scalars(oldest))
    else:
        held = list(connection.scalars(oldest.with_for_update(of=table, skip_locked=True)))
        ids = list(connection.scalars(select(table.c.id).where(and_(among(connection, table.c.id, held), ~awaited))))
    if ids:
        for column in (
            *(work_tag.c.work_id, work_trigger.c.work_id),
            *(work_parent.c.work_id, work_parent.c.parent_id, table.c.id),
        ):
            connection.execute(delete(column.table).where(among(connection, column, ids)))
    return len(ids)
