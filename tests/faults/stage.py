"""Where the faults strike: a server as a process of its own, a proxy before it, and two replicas.

`a` goes to the server past the faults, `b` by the proxy. Every scene is played so:

    both have the same rows; both write; the fault strikes b, or the server; the fault ends
    then journeys run, and nobody writes: until nothing waits any more, and all are equal (`drain`)

A stage is as good as new after a scene that ended well, and serves for the next one, which writes rows of its own.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url

from backhaul.backoff import Backoff
from backhaul.clock import SystemClock
from backhaul.database import open_database, sqlite_file
from backhaul.errors import BackhaulError
from backhaul.remotes.http import HttpRemote
from backhaul.replica import outbox
from backhaul.replica.reconcile import Comparison, compare
from backhaul.server import auth
from backhaul.server.settings import Settings
from tests.checker import processes
from tests.faults.proxy import Proxy, honest, proxy
from tests.replicas import Replica, make_postgresql_replica, make_replica
from tests.services import free_port
from tests.waiting import eventually

SCOPE = "staged"
RETRY = Backoff(initial_ms=1, most_ms=20)
TIMEOUT = (10.0, 20.0)  # longer than any honest answer takes on a crowded machine
IMPATIENT = (10.0, 0.4)  # shorter than a slow server's answer takes
DRAIN_SECONDS = 60
TABLES = ("customer", "invoice", "line")


SHOP = """
    CREATE TABLE customer ({serial} PRIMARY KEY, name TEXT NOT NULL, phone TEXT, photo {bytes});
    CREATE TABLE invoice ({serial} PRIMARY KEY, customer_id INTEGER NOT NULL, total INTEGER);
    CREATE TABLE line (invoice_id INTEGER NOT NULL, position INTEGER NOT NULL, what TEXT,
                       PRIMARY KEY (invoice_id, position));
"""
SQLITE = SHOP.format(serial="id INTEGER", bytes="BLOB")
POSTGRESQL = SHOP.format(serial="id SERIAL", bytes="BYTEA")


class Stage:
    """server_url: of the server's database; None is SQLite in its folder. b_url: of the database of `b`, the same."""

    def __init__(self, folder: Path, server_url: str | None, b_url: str | None, stack: ExitStack) -> None:
        self.folder = folder
        self.data = folder / "server"
        self.server_url = server_url
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._server: BaseProcess | None = None
        stack.callback(self.kill_server)
        self.serve()
        self.between: Proxy = stack.enter_context(proxy(self.url))
        self.a = self._replica("a", self.url, None, stack)
        self.b = self._replica("b", self.between.url, b_url, stack)
        self.drained = True
        self.first = 0  # the first key of the scene that is played

    # ---------------------------------------------------------------------------------------------- the server

    def serve(self) -> None:
        """Start it, unless it runs."""
        if self._server is None:
            self._server = processes.start(processes.serve_on, self._port, self.data, self.server_url)
            eventually(self._listens, 30, "the server listens", pause=0.03)

    def kill_server(self) -> None:
        """kill -9."""
        if self._server is not None:
            processes.kill(self._server)
            self._server = None

    def death_of_server(self) -> int | None:
        """The exit status of a server that dies by itself."""
        assert self._server is not None
        self._server.join(60)
        status = self._server.exitcode
        self.kill_server()
        return status

    def serve_with(self, target: Any, *given: Any) -> None:
        """In place of the server, the same with something done to its process before."""
        self.kill_server()
        self._server = processes.start(target, *given, self._port, self.data, self.server_url)
        eventually(self._listens, 30, "the server listens", pause=0.03)

    def _listens(self) -> bool:
        remote = HttpRemote(self.url)
        try:
            remote.digest()
        except BackhaulError as error:
            return "token" in str(error)
        finally:
            remote.close()
        return True

    def back_up_server(self) -> Callable[[], None]:
        """What puts the server's database back to as it is now."""
        self.kill_server()
        if self.server_url is not None:
            put_back = _back_up_postgresql(self.server_url)
        else:
            copy = Path(shutil.copytree(self.data, self.folder / f"backup {self.first}"))
            put_back = partial(_put_folder_back, copy, self.data)
        self.serve()

        def put_server_back() -> None:
            self.kill_server()
            put_back()
            self.serve()

        return put_server_back

    # ---------------------------------------------------------------------------------------------- the replicas

    def back_up_b(self) -> Callable[[], None]:
        """What puts b's database back to as it is now; nobody uses it meanwhile."""
        self._close_b()
        file = sqlite_file(self.b.database.engine.url)
        if file is None:
            put_back = _back_up_postgresql(_url(self.b))
        else:
            put_back = partial(shutil.copyfile, shutil.copyfile(file, f"{file}.backup"), file)
        self._open_b()

        def put_b_back() -> None:
            self._close_b()
            put_back()
            self._open_b()

        return put_b_back

    def _close_b(self) -> None:
        if self.b.database.sqlite:
            self.b.app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.b.app.close()
        self.b.database.close()

    def _open_b(self) -> None:
        self.b.database = open_database(_url(self.b))
        if self.b.database.sqlite:
            self.b.app = sqlite3.connect(str(self.b.database.engine.url.database))
        else:
            self.b.app = psycopg.connect(_libpq(_url(self.b)), autocommit=True)  # type: ignore[assignment]

    def _replica(self, name: str, url: str, database_url: str | None, stack: ExitStack) -> Replica:
        database = open_database(Settings(data=self.data, database_url=self.server_url).url)
        with database.writing() as connection:
            code = auth.enrol(connection, SCOPE, SystemClock().now())
        database.close()
        remote = HttpRemote(url, timeout=TIMEOUT)
        stack.callback(remote.close)
        if database_url is None:
            replica = make_replica(self.folder / f"{name}.sqlite", remote, schema=SQLITE, code=code)
        else:
            replica = make_postgresql_replica(database_url, remote, schema=POSTGRESQL, code=code, home=self.folder)
        stack.callback(replica.close)
        return replica

    def begin(self) -> None:
        """The next scene: three customers that both know."""
        self.drained = False
        self.first += 100
        for number in (1, 2, 3):
            self.a.write("INSERT INTO customer (id, name) VALUES (?, 'Ada')", self.first + number)
        self.a.sync()
        self.b.sync()

    def write(self) -> None:
        """Both do: what is alone, what belongs together, what the other one has changed, too, and what goes away."""
        for replica, number in ((self.a, self.first + 10), (self.b, self.first + 20)):
            replica.write("UPDATE customer SET phone = ? WHERE id = ?", f"of {number}", self.first + 1)
            self._write_together(replica, number)
            replica.write("INSERT INTO customer (id, name) VALUES (?, 'Kim')", number)
            replica.write("UPDATE customer SET phone = ? WHERE id = ?", "5", number)
        self.b.write("DELETE FROM customer WHERE id = ?", self.first + 3)

    def _write_together(self, replica: Replica, number: int) -> None:
        """One transaction. SQLite is told so by a mark, as the hook does it."""
        sqlite = replica.database.sqlite
        place = "?" if sqlite else "%s"
        with replica.app if sqlite else replica.app.transaction():
            if sqlite:
                replica.app.execute("UPDATE backhaul_replica SET group_id = ?", (f"invoice {number}",))
            statement = f"INSERT INTO invoice (id, customer_id, total) VALUES ({place}, 1, 1250)"
            replica.app.execute(statement, (number,))
            for position in range(3):
                statement = f"INSERT INTO line VALUES ({place}, {place}, 'tea')"
                replica.app.execute(statement, (number, position))
            if sqlite:
                replica.app.execute("UPDATE backhaul_replica SET group_id = NULL")

    def check_that_nothing_is_lost(self) -> None:
        first = self.first
        for replica in (self.a, self.b):
            phones = {key: phone for key, _, phone, *_ in replica.rows("customer") if key > first}
            assert phones.keys() == {first + 1, first + 2, first + 10, first + 20}
            assert phones[first + 1] in (f"of {first + 10}", f"of {first + 20}")
            assert (phones[first + 10], phones[first + 20]) == ("5", "5")
            assert {key for key, *_ in replica.rows("invoice") if key > first} == {first + 10, first + 20}
            assert sum(key > first for key, *_ in replica.rows("line")) == 6

    # ---------------------------------------------------------------------------------------------- journeys

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """b waits for an answer no longer than `IMPATIENT` says."""
        connection = self.b.remote._connection
        patience, connection._timeout = connection._timeout, IMPATIENT
        try:
            yield
        finally:
            connection._timeout = patience

    def push(self, replica: Replica) -> Exception | None:
        """One run, as a worker does it; what it has raised."""
        return _raised(lambda: replica.push(retry=RETRY, alone=True))

    def pull(self, replica: Replica) -> Exception | None:
        return _raised(replica.pull)

    def hasten(self, replica: Replica) -> None:
        """What waits for its next try may go now, as when a person asks for it."""
        with replica.database.writing() as connection:
            outbox.hasten(connection)

    def heal(self) -> None:
        self.between.rule = honest
        self.serve()

    def drain(self) -> None:
        """Journeys, and nothing else, until nothing waits and all are equal."""
        end = time.monotonic() + DRAIN_SECONDS
        while True:
            replicas = {"a": self.a, "b": self.b}
            raised = [
                error
                for replica in replicas.values()
                for error in (self.pull(replica), self.push(replica), self.pull(replica))
                if error is not None
            ]
            left = {name: replica.states() for name, replica in replicas.items()}
            if not raised and not any(left.values()):
                found = [self.compared(replica) for replica in replicas.values()]
                if all(one.moving is None for one in found):
                    break
            assert time.monotonic() < end, f"left: {left}; raised: {raised!r}"
            time.sleep(0.02)  # before it is asked again; the deadline above ends it
        assert all(one.equal for one in found), found
        assert [self.a.rows(table) for table in TABLES] == [self.b.rows(table) for table in TABLES]
        self.drained = True

    def compared(self, replica: Replica) -> Comparison:
        return compare(replica.database, replica.remote, context=replica.context)


def _url(replica: Replica) -> str:
    return replica.database.engine.url.render_as_string(hide_password=False)


def _libpq(url: str, database: str | None = None) -> str:
    parsed = make_url(url).set(drivername="postgresql")
    return (parsed.set(database=database) if database else parsed).render_as_string(hide_password=False)


def _back_up_postgresql(url: str) -> Callable[[], None]:
    name = make_url(url).database

    def copy(old: str, new: str) -> None:
        with psycopg.connect(_libpq(url, "postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {new} WITH (FORCE)")  # type: ignore[arg-type]
            ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            connection.execute(ending, (old,))
            connection.execute(f"CREATE DATABASE {new} TEMPLATE {old}")  # type: ignore[arg-type]

    copy(f"{name}", f"{name}_backup")
    return partial(copy, f"{name}_backup", f"{name}")


def _put_folder_back(backup: Path, folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)


def _raised(journey: Any) -> Exception | None:
    try:
        journey()
    except BackhaulError as error:
        return error
    return None
