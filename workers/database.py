"""The database of a worker's main process, which forks its children again and again.

A SQLite connection must not be open in a process that forks: the child inherits what the library believes of the
file's locks, but not the locks, and its own connections to the same file would then share a lock that nobody holds
(https://sqlite.org/howtocorrupt.html, 2.6). So every use is short and under one lock, and a fork waits for that lock
and finds the connections closed. They are opened again at the next use.

PostgreSQL may fall silent in the middle of a use, and no fork waits for that: the connection is cut from outside, and
one that is still being made is left to its thread. The child has no such thread, and never touches what it inherits.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from backhaul.database import PATIENCE_MS, Database, cut, on_server, open_database

FORK_SECONDS = 1.0  # that a fork waits for PostgreSQL, and once more after the connection was cut


class WorkerDatabase:
    def __init__(self, url: str, *, patience_ms: int = PATIENCE_MS) -> None:
        """patience_ms: how long a transaction waits for a lock."""
        self._url = url
        self._patience_ms = patience_ms
        self.on_server = on_server(url)
        self._database: Database | None = None
        self._driver: Any = None  # the connection to PostgreSQL, once there is one
        self._inherited: list[Any] = []  # kept from being closed by the child that has inherited it
        self._in_use = threading.RLock()
        self._used_since: float | None = None
        self._held = False
        os.register_at_fork(
            before=self._let_go, after_in_parent=self._in_use_again, after_in_child=self._begin_in_the_child
        )

    @contextmanager
    def using(self) -> Iterator[Database]:
        """One user at a time, so there is one connection, and `PRAGMA data_version` can be compared between uses."""
        with self._in_use:
            outermost, self._used_since = self._used_since is None, self._used_since or time.monotonic()
            try:
                if self._database is None:
                    self._database = self._opened()
                yield self._database
            finally:
                if outermost:
                    self._used_since = None

    def cut_if_silent(self, seconds: float) -> None:
        """From another thread, now and then: whoever has used PostgreSQL for so long is cut off, and told that the
        connection was lost. A server's process may hang while its machine confirms all that it is sent: then nothing
        else ends the waiting."""
        since = self._used_since
        if self.on_server and since is not None and time.monotonic() - since > seconds:
            cut(self._driver)

    def close(self) -> None:
        """On PostgreSQL, who uses it is cut off, if he does not end; on SQLite he does end."""
        if self._taken():
            try:
                self._close()
            finally:
                self._in_use.release()

    def _opened(self) -> Database:
        database = open_database(self._url, patience_ms=self._patience_ms)
        if self.on_server:
            event.listen(database.engine, "connect", self._connected)
        return database

    def _connected(self, driver: Any, _record: object) -> None:
        self._driver = driver

    def _taken(self) -> bool:
        if not self.on_server:
            return self._in_use.acquire()
        if self._in_use.acquire(timeout=FORK_SECONDS):
            return True
        cut(self._driver)
        return self._in_use.acquire(timeout=FORK_SECONDS)

    def _close(self) -> None:
        database, self._database, self._driver = self._database, None, None
        if database is not None:
            database.close()

    def _let_go(self) -> None:
        self._held = self._taken()
        if self._held:
            self._close()

    def _in_use_again(self) -> None:
        if self._held:
            self._held = False
            self._in_use.release()

    def _begin_in_the_child(self) -> None:
        self._inherited += [self._database, self._driver]
        self._database = self._driver = None
        self._in_use, self._used_since, self._held = threading.RLock(), None, False
