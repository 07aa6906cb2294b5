"""An app of the checker's world: transactions of several keys on its own database, which it knows nothing else of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random
from typing import Any

from sqlalchemy import Connection, event, text

from backhaul.database import open_database
from backhaul.errors import DatabaseBusy
from backhaul.replica.hook import Hook
from tests.checker.history import Transaction

KEYS = [f"key {number}" for number in range(9)]
TABLE = "CREATE TABLE register (k TEXT PRIMARY KEY, v BIGINT NOT NULL)"
MOST_SESSIONS = 64


def make_registers(url: str, *, rows: bool) -> None:
    """The app's own table; with its rows, at one place alone: elsewhere they come by sync."""
    database = open_database(url)
    with database.writing() as connection:
        connection.execute(text(TABLE))
        if rows:
            connection.execute(text("INSERT INTO register VALUES (:k, 0)"), [{"k": key} for key in KEYS])
    database.close()


class Session:
    """number: under MOST_SESSIONS, unlike any other session's, so that its values are. own: the keys that it may write.

    clock_offset_ms: what the machine's clock is off by, as the triggers see it.
    """

    def __init__(
        self, url: str, name: str, number: int, random: Random, *, own: Sequence[str] = KEYS, hooked: bool = False
    ) -> None:
        self.name = name
        self._own = own
        self.clock_offset_ms = 0
        self._number = number
        self._random = random
        self._database = open_database(url)
        if self._database.sqlite:
            event.listen(self._database.engine, "connect", self._connected)
        self._hook = Hook(self._database.engine, lambda: None) if hooked else None

    def transact(self) -> Transaction:
        """Some keys are read, and some of those get a greater value; now and then it only looks at everything."""
        if self._random.random() < 0.3:
            return self.look()
        keys = self._random.sample(KEYS, self._random.randint(2, 6))
        while True:
            try:
                return self._write(keys)
            except DatabaseBusy:  # PostgreSQL: another one was faster
                continue

    def _write(self, keys: list[str]) -> Transaction:
        began = time.monotonic_ns()
        with self._database.writing() as connection:
            if not self._database.sqlite:
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            found = _read(connection, keys, "" if self._database.sqlite else " FOR UPDATE")
            value = time.monotonic_ns() // 1_000 * MOST_SESSIONS + self._number
            writes = {key: value for key in keys[: self._random.randint(1, len(keys))] if key in self._own}
            for key in writes:
                connection.execute(text("UPDATE register SET v = :v WHERE k = :k"), {"k": key, "v": value})
        return Transaction(session=self.name, began=began, ended=time.monotonic_ns(), reads=found, writes=writes)

    def look(self) -> Transaction:
        began = time.monotonic_ns()
        with self._database.reading() as connection:
            found = _read(connection, KEYS)
        return Transaction(session=self.name, began=began, ended=time.monotonic_ns(), reads=found)

    def close(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._database.close()

    def _connected(self, connection: Any, _record: object) -> None:
        """The triggers tell the time with SQLite's own clock, which is to be this machine's."""
        connection.execute("PRAGMA synchronous = OFF")  # no power fails here
        connection.create_function("julianday", 1, lambda _now: _julian(time.time() * 1_000 + self.clock_offset_ms))


def _julian(milliseconds: float) -> float:
    return milliseconds / 86_400_000 + 2_440_587.5


def _read(connection: Connection, keys: list[str], locked: str = "") -> dict[str, int]:
    """The rows that are read by one who is to write are locked, so that no greater value can come in between."""
    rows = connection.execute(text(f"SELECT k, v FROM register ORDER BY k{locked}"))
    return {key: value for key, value in rows if key in keys}
