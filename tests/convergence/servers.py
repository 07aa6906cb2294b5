"""The server that a simulation runs against: the real store, in this process, on disk: it can be put back."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backhaul.clock import Clock, stamp_to_text
from backhaul.database import open_database, sqlite_file
from backhaul.merge import Functions
from backhaul.server import auth, horizon
from backhaul.server.memory import StoreRemote
from backhaul.server.store import ServerDatabase, Store, prepare
from tests.convergence import app as merges

SCOPE = "simulated"


class Server:
    """url: of its database; one on SQLite can be put back."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = url
        self.clock = clock
        self._remotes: list[StoreRemote] = []
        self._start()

    def connect(self) -> StoreRemote:
        """A remote that is not registered yet."""
        self._remotes.append(StoreRemote(self.store, self.clock))
        return self._remotes[-1]

    def enrol(self) -> str:
        """A one-time code."""
        with self.store.database.writing() as connection:
            return auth.enrol(connection, SCOPE, self.clock.now())

    def back_up(self) -> None:
        self.store.database.close()  # so that nothing of it lies in a file beside it
        shutil.copy(self._path, self._backup)
        self._start()

    def write(self, table: str, key: str, fields: dict[str, Any]) -> tuple[str, int] | None:
        """The server's own word about a record that it has: stamp and version; None where it has none."""
        there = self.store.records(SCOPE, [(table, [key])])
        if not there or there[0].deleted:
            return None
        version = self.store.write(SCOPE, table, [key], fields, self.clock.now())
        with self.store.database.reading() as connection:
            return stamp_to_text(horizon.of_scope(connection, SCOPE).hlc), version

    def put_back(self) -> None:
        self.store.database.close()
        for beside in self._path.parent.glob(f"{self._path.name}-*"):
            beside.unlink()
        shutil.copy(self._backup, self._path)
        self._start()

    def close(self) -> None:
        self.store.database.close()

    def knows(self, replica: str, *, backup: bool = False) -> bool:
        """Whether the replica's token is good. backup: once the server is put back."""
        with sqlite3.connect(self._backup if backup else self._path) as database:
            found = database.execute("SELECT 1 FROM server_replica WHERE replica = ?", (replica,)).fetchone()
        database.close()
        return found is not None

    def remembers(self) -> set[str]:
        """The ops whose outcomes it has."""
        with sqlite3.connect(self._path) as database:
            found = {op for (op,) in database.execute("SELECT op_id FROM server_applied")}
        database.close()
        return found

    @property
    def _path(self) -> Path:
        file = sqlite_file(self.url)
        assert file is not None
        return file

    @property
    def _backup(self) -> Path:
        return self._path.with_name("server's backup")

    def _start(self) -> None:
        database = ServerDatabase(open_database(self.url))
        prepare(database, self.clock.now())
        self.store = Store(database, Functions([merges.__name__]))
        for remote in self._remotes:
            remote.store = self.store


@contextmanager
def store_server(url: str, clock: Clock) -> Iterator[Server]:
    server = Server(url, clock)
    yield server
    server.close()
