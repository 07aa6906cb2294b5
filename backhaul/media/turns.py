"""Which upload comes first: by priority, and among equals by the order that the settings say.

    small   small ones before the others, and of each the newest first: what was just done is what people look for
    new     the newest first
    old     in the order in which they were put

Whose turn it is is asked when a message has come, and not when it was sent: what was put later overtakes what lies in
the broker. Only what could be sent at once counts: its work waits, is due, and is of the same queue.
"""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Select, literal_column, select

from backhaul.media.uploads import Upload
from backhaul.schema import upload as table
from backhaul.schema import work

Order = Literal["small", "new", "old"]
SMALL_BYTES = 256 * 2**10

# Spelt out, and no parameters: only so a database sees that the partial index will do.
_OPEN: ColumnElement[bool] = literal_column("backhaul_upload.state IN ('pending', 'sending')")


def waiting(
    connection: Connection,
    *,
    queue: str,
    now: int,
    order: Order,
    most: int,
    most_bytes: int | None = None,
    unasked: bool = False,
    begun: bool = True,
) -> list[Upload]:
    """Those that wait, the first at first. most_bytes: of each file. unasked: only those of which the server was not
    asked yet. begun: also those of which the server may have some bytes."""
    query = _waiting(select(table), queue, now).order_by(*_rank(order)).limit(most)
    if most_bytes is not None:
        query = query.where(table.c.size <= most_bytes)
    if unasked:
        query = query.where(table.c.asked_at.is_(None))
    if not begun:
        query = query.where(table.c.state == "pending")
    return [Upload(**row) for row in connection.execute(query).mappings()]


def before(
    connection: Connection, upload_id: str, *, queue: str, now: int, order: Order, most_bytes: int | None = None
) -> tuple[str, int] | None:
    """Whose turn it is, with the generation of its work; None: this one's, or it does not wait (any more)."""
    own = _waiting(select(table.c.id), queue, now).where(table.c.id == upload_id)
    if connection.execute(own).scalar_one_or_none() is None:
        return None
    query = _waiting(select(table.c.id, work.c.generation), queue, now).order_by(*_rank(order)).limit(1)
    if most_bytes is not None:
        query = query.where(table.c.size <= most_bytes)
    first = connection.execute(query).one_or_none()
    return None if first is None or first.id == upload_id else (first.id, first.generation)


def _waiting(query: Select[Any], queue: str, now: int) -> Select[Any]:
    due = work.c.state == "ENQUEUED", work.c.queue == queue, work.c.due_at <= now
    return query.join(work, work.c.id == table.c.id).where(_OPEN, *due)


def _rank(order: Order) -> list[ColumnElement[Any]]:
    first: list[ColumnElement[Any]] = [table.c.priority.desc()]
    if order == "small":
        first.append(table.c.size > SMALL_BYTES)
    return [*first, table.c.created_at.asc() if order == "old" else table.c.created_at.desc(), table.c.id]
