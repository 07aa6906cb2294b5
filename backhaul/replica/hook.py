"""The hook on the host's own SQLAlchemy engine: it marks the changes of one transaction as one group, and rings.

The mark is set with the first statement that writes, inside the app's transaction, and taken away right before the
commit; a rollback takes it away with everything else. A connection in autocommit has no transaction to mark: there
each change is a group of its own, as it is for writers without the hook. What happens here may never fail the app's
commit: a database that is no replica (any more) is left alone.

It stands at the dialect, where statements and commits pass to the driver, and not in the engine's own events: those
put every statement of the app on a slower path (7 microseconds, measured), and none of them comes after a commit.

On PostgreSQL the transaction's own id is the group, whoever writes; there the hook only rings.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from secrets import token_hex
from typing import Any

from sqlalchemy import Connection, Engine, event

from backhaul.database import in_autocommit

Act = Callable[[], None]

MARK = "UPDATE backhaul_replica SET group_id = ?"
WRITES = re.compile(
    r"(\s|/\*.*?\*/|--[^\n]*\n)*"
    r"(INSERT|UPDATE|DELETE|REPLACE|MERGE|COPY|TRUNCATE|WITH\b.*\b(INSERT|UPDATE|DELETE|REPLACE))\b",
    re.I | re.S,
)
EXECUTIONS = ("do_execute", "do_executemany", "do_execute_no_params")
ENDINGS = ("do_commit", "do_rollback", "do_savepoint", "do_rollback_to_savepoint")


class Hook:
    """wrote: called after each commit of a transaction that wrote; it must return at once, and not raise."""

    def __init__(self, engine: Engine, wrote: Callable[[], None]) -> None:
        self._engine = engine
        self._wrote = wrote
        self._groups: dict[int, str] = {}  # id of the driver's connection -> the group of its open transaction
        self._marked: set[int] = set()  # those of them whose mark is in the database
        self._after: dict[int, list[Act]] = {}  # what is to be done once such a connection has committed
        self._savepoints: dict[int, dict[str, int]] = {}  # how much of that there was at each of its savepoints
        dialect: Any = engine.dialect
        self._plain = {name: getattr(dialect, name) for name in ENDINGS}
        for name in EXECUTIONS:
            event.listen(engine, name, self._executing)
        dialect.do_commit = self._commit
        dialect.do_rollback = self._rollback
        dialect.do_savepoint = self._savepoint
        dialect.do_rollback_to_savepoint = self._rollback_to_savepoint

    def remove(self) -> None:
        for name in EXECUTIONS:
            event.remove(self._engine, name, self._executing)
        for name in ENDINGS:
            delattr(self._engine.dialect, name)

    def after_commit(self, connection: Connection, act: Act) -> bool:
        """Do this once the open transaction of the connection has committed, and never if it does not. False, and
        nothing is done, for a connection of another engine."""
        if connection.dialect is not self._engine.dialect:
            return False
        driver = _driver(connection.connection)
        if in_autocommit(driver):
            act()
        else:
            self._after.setdefault(id(driver), []).append(act)
        return True

    def _executing(self, cursor: Any, statement: str, *_: Any) -> None:
        driver = cursor.connection
        if id(driver) in self._marked or not WRITES.match(statement):
            return
        if in_autocommit(driver):
            self._wrote()
            return
        if self._mark(driver, self._groups.setdefault(id(driver), token_hex(16))):
            self._marked.add(id(driver))

    def _commit(self, connection: Any) -> None:
        driver = _driver(connection)
        wrote = self._groups.pop(id(driver), None)
        if wrote is not None:
            self._marked.discard(id(driver))
            self._mark(driver, None)
        self._plain["do_commit"](connection)
        if wrote is not None:
            self._wrote()
        self._savepoints.pop(id(driver), None)
        for act in self._after.pop(id(driver), ()):
            act()

    def _rollback(self, connection: Any) -> None:
        for kept in (self._groups, self._after, self._savepoints):
            kept.pop(id(_driver(connection)), None)
        self._marked.discard(id(_driver(connection)))
        self._plain["do_rollback"](connection)

    def _savepoint(self, connection: Any, name: str) -> None:
        driver = id(_driver(connection.connection))
        self._savepoints.setdefault(driver, {})[name] = len(self._after.get(driver, ()))
        self._plain["do_savepoint"](connection, name)

    def _rollback_to_savepoint(self, connection: Any, name: str) -> None:
        """The mark may have been set after the savepoint, and be gone with it."""
        driver = id(_driver(connection.connection))
        self._marked.discard(driver)
        del self._after.get(driver, [])[self._savepoints.get(driver, {}).get(name, 0) :]
        self._plain["do_rollback_to_savepoint"](connection, name)

    def _mark(self, driver: Any, group: str | None) -> bool:
        """Whether the database has been told. A locked one raises: the app's own statement, which follows, would have
        waited as long, and then said the same. A database that is no replica (any more) is not the app's affair."""
        dialect: Any = self._engine.dialect
        if dialect.name == "postgresql":
            return True
        try:
            driver.execute(MARK, (group,))
        except dialect.dbapi.Error as error:
            if "locked" in str(error):
                raise
            return False
        return True


def _driver(connection: Any) -> Any:
    """The driver's connection behind the pool's."""
    return getattr(connection, "dbapi_connection", connection)
