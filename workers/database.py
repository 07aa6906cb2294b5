"""The database of a worker's main process, which forks its children again and again.

A SQLite connection must not be open in a process that forks: the child inherits what the library believes of the
file's locks, but not the locks, and its own connections to the same file would then share a lock that nobody holds
(https://sqlite.org/howtocorrupt.html, 2.6). So every use is short and under one lock, and a fork waits for that lock
and finds the connections closed. They are opened again at the next use.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from backhaul.database import Database, open_database


class WorkerDatabase:
    def __init__(self, url: str) -> None:
        self._url = url
        self._database: Database | None = None
        self._in_use = threading.RLock()
        os.register_at_fork(
            before=self._let_go, after_in_parent=self._in_use_again, after_in_child=self._begin_in_the_child
        )

    @contextmanager
    def using(self) -> Iterator[Database]:
        """One user at a time, so there is one connection, and `PRAGMA data_version` can be compared between uses."""
        with self._in_use:
            if self._database is None:
                self._database = open_database(self._url)
            yield self._database

    def close(self) -> None:
        with self._in_use:
            database, self._database = self._database, None
            if database is not None:
                database.close()

    def _let_go(self) -> None:
        self._in_use.acquire()
        self.close()

    def _in_use_again(self) -> None:
        self._in_use.release()

    def _begin_in_the_child(self) -> None:
        self._in_use = threading.RLock()
