"""Moments that are kept by name, for example of the last `cancel_all`."""

from __future__ import annotations

from sqlalchemy import Connection, select

from backhaul.schema import work_mark as table
from backhaul.statements import insert

CANCEL_ALL = "cancel_all"


def mark(connection: Connection, name: str, at: int) -> None:
    statement = insert(connection, table).values(name=name, at=at)
    connection.execute(
        statement.on_conflict_do_update(index_elements=[table.c.name], set_={"at": statement.excluded.at})
    )


def marked(connection: Connection, name: str) -> int | None:
    return connection.scalar(select(table.c.at).where(table.c.name == name))
