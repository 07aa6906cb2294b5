"""Who comes first where two do something at once. SQLite has one writer; on PostgreSQL rows are held, and words.

Who looks after the ledger (Beat) waits for nobody: what another transaction holds is left for the next time. An app may
keep a transaction open as long as it likes, and one that has appended to waiting work holds that work.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Text, any_, false, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from backhaul.schema import work as table
from backhaul.statements import on_postgresql


def free(connection: Connection, these: ColumnElement[bool], *, limit: int | None = None) -> list[Any]:
    """For a WHERE beside `these`: of them only what nobody else holds, taken in the order of the ids."""
    if not on_postgresql(connection):
        return []
    found = select(table.c.id).where(these).order_by(table.c.id).limit(limit).correlate(None)
    once = func.array(found.with_for_update(skip_locked=True).scalar_subquery(), type_=ARRAY(Text))
    return [table.c.id == any_(once)]


def hold_word(connection: Connection, word: str) -> None:
    """Until the transaction ends, nobody else goes on who holds the same word."""
    if on_postgresql(connection):
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"backhaul_work {word}", 0))))
    else:
        hold_for_writing(connection)


def hold_for_writing(connection: Connection) -> None:
    """In a transaction of the app's own on SQLite, which may not have begun yet: one that begins with a read fails at
    its first write when another has written meanwhile, and cannot wait for its turn."""
    if not on_postgresql(connection):
        connection.execute(update(table).where(false()).values(name=None))
