"""The hook on the host's own SQLAlchemy engine: it marks the changes of one transaction as one group, and rings.

The mark is set with the first statement that writes, inside the app's transaction, and taken away before the commit;
a rollback takes it away with everything else. A connection in autocommit has no transaction to mark: there each change
is a group of its own, as it is for writers without the hook. What happens here may never fail the app's commit: a
database that is no replica (any more) is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Engine, event

GROUP = "backhaul_group"  # in Connection.info: the group of the open transaction
MARKED = "backhaul_marked"  # in Connection.info: whether the database has been told of it
MARK = "UPDATE backhaul_replica SET group_id = ?"
WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|REPLACE|WITH\b.*\b(INSERT|UPDATE|DELETE|REPLACE))\b", re.I | re.S)


class Hook:
    """wrote: called after (rarely: just before) each commit of a transaction that wrote; it must return at once."""

    def __init__(self, engine: Engine, wrote: Callable[[], None]) -> None:
        self._engine = engine
        self._wrote = wrote
        self._listeners: list[tuple[str, Callable[..., None]]] = [
            ("before_cursor_execute", self._executing),
            ("rollback_savepoint", self._rolled_back_to_savepoint),
            ("rollback", self._rolled_back),
            ("commit", self._committing),
        ]
        for name, listener in self._listeners:
            event.listen(engine, name, listener)

    def remove(self) -> None:
        for name, listener in self._listeners:
            event.remove(self._engine, name, listener)

    def _executing(self, connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if MARKED in connection.info or not WRITES.match(statement):
            return
        dbapi: Any = connection.connection.dbapi_connection
        if _in_autocommit(dbapi):
            self._wrote()
            return
        connection.info.setdefault(GROUP, uuid4().hex)
        connection.info[MARKED] = True
        self._mark(connection, dbapi, connection.info[GROUP])

    def _rolled_back_to_savepoint(self, connection: Connection, *_: Any) -> None:
        """The mark may have been set after the savepoint, and be gone with it."""
        connection.info.pop(MARKED, None)

    def _rolled_back(self, connection: Connection) -> None:
        connection.info.pop(MARKED, None)
        connection.info.pop(GROUP, None)

    def _committing(self, connection: Connection) -> None:
        connection.info.pop(MARKED, None)
        if connection.info.pop(GROUP, None) is not None:
            self._mark(connection, connection.connection.dbapi_connection, None)
            self._wrote()

    def _mark(self, connection: Connection, dbapi: Any, group: str | None) -> None:
        # Whatever is wrong here (locked, no replica any more) is not the app's affair: its own statement follows, and
        # says for itself what it cannot do.
        dialect: Any = connection.dialect
        with suppress(dialect.dbapi.Error):
            dbapi.execute(MARK, (group,))


def _in_autocommit(dbapi: Any) -> bool:
    """Whether each statement commits by itself (sqlite3: isolation_level None and no BEGIN; autocommit, 3.12)."""
    if getattr(dbapi, "autocommit", None) is True:
        return True
    return dbapi.isolation_level is None and not dbapi.in_transaction
