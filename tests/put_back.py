"""A server that can be put back to a backup, with its replicas, in one process. Its clock is the world's: it stands
until somebody moves it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import text

from backhaul.database import open_database
from backhaul.errors import Unreachable
from backhaul.server import auth
from backhaul.server.memory import StoreRemote
from backhaul.server.store import ServerDatabase, Store, prepare
from tests.replicas import MovedClock, Replica, make_postgresql_replica, make_replica

MINUTE = 60_000
SUFFIXES = ("", "-wal", "-shm")
MOST_ROUNDS = 8


@dataclass
class Server:
    """On disk. Its replicas ask whatever store is there."""

    path: Path
    store: Store
    clock: MovedClock
    made: list[Replica] = field(default_factory=list)

    def replicas(self, names: str, *, postgresql: Any = None, **said: Any) -> list[Replica]:
        """One for each letter; they have heard nothing yet. postgresql: a cluster, where the databases are to be."""
        return [self._replica(name, postgresql, **said) for name in names]

    def _replica(self, name: str, postgresql: Any, **said: Any) -> Replica:
        with self.store.database.writing() as connection:
            said["code"] = auth.enrol(connection, "default", self.clock.now())
        remote = StoreRemote(self.store, self.clock)
        if postgresql is None:
            replica = make_replica(self.path.with_name(f"{name}.sqlite"), remote, **said)
        else:
            replica = make_postgresql_replica(postgresql.database(), remote, home=self.path.parent, **said)
        replica.clock = self.clock
        self.made.append(replica)
        return replica

    def at(self, replica: Replica, statement: str, *values: object) -> None:
        """A write of the app at the world's time: the triggers know the machine's alone."""
        replica.write(statement, *values)
        replica.write("UPDATE backhaul_outbox SET captured_at = ? WHERE state = 'pending'", self.clock.now())

    def settle(self, *replicas: Replica) -> None:
        """Let them sync, in this order, until they have nothing more to say to each other."""
        for _ in range(MOST_ROUNDS):
            for replica in replicas:
                self.clock.moment += 3 * 60 * MINUTE
                replica.sync()
            if all(self._is_done(one) for one in replicas):
                return

    def _is_done(self, replica: Replica) -> bool:
        with self.store.database.reading() as connection:
            position = connection.execute(text("SELECT position FROM server_scope")).scalar_one()
        return done(replica) and replica.asked("SELECT position FROM backhaul_replica") == [(position,)]

    def back_up(self) -> Path:
        """A minute passes after it."""
        copy = self.path.with_suffix(".backup")
        self._move(self.path, copy)
        return copy

    def put_back(self, copy: Path) -> None:
        """A minute passes after it."""
        self._move(copy, self.path)

    def _move(self, source: Path, target: Path) -> None:
        self.store.database.close()
        for suffix in SUFFIXES:
            Path(f"{target}{suffix}").unlink(missing_ok=True)
            if Path(f"{source}{suffix}").exists():
                shutil.copy(f"{source}{suffix}", f"{target}{suffix}")
        self.store.database = _opened(self.path)
        self.clock.moment += MINUTE


def _opened(path: Path) -> ServerDatabase:
    return ServerDatabase(open_database(f"sqlite:///{path}"))


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    path, clock = folder / "server.sqlite", MovedClock()
    database = _opened(path)
    prepare(database, clock.now())
    server = Server(path, Store(database), clock)
    yield server
    for replica in server.made:
        replica.close()
    server.store.database.close()


def done(replica: Replica) -> bool:
    """It has nothing to say, and nothing to find out."""
    recovering = replica.asked("SELECT recovering FROM backhaul_replica")
    staged = replica.asked("SELECT count(*) FROM backhaul_stage")
    return (recovering, staged, replica.outbox()) == ([("",)], [(0,)], [])


def seen_between_pushes(sender: Replica, reader: Replica) -> list[tuple[int, int]]:
    """Send what waits one by one; the total of the invoice, and of its lines, as another sees them after each."""
    push, seen = sender.remote.push, list[tuple[int, int]]()

    def then_read(ops: Any) -> Any:
        reply = push(ops)
        reader.pull()
        if reader.rows("invoice"):
            seen.append((reader.rows("invoice")[0][1], sum(row[2] for row in reader.rows("line"))))
        return reply

    sender.remote.push = then_read  # type: ignore[method-assign]
    sender.push(batch=1)
    sender.remote.push = push  # type: ignore[method-assign]
    return seen


@contextmanager
def answers_lost(replica: Replica) -> Iterator[None]:
    """What it pushes arrives, and nobody hears of it."""
    with _pushing(replica, arrives=1, answered=0):
        yield


@contextmanager
def sent_once(replica: Replica) -> Iterator[None]:
    """Its next push arrives and is answered; then there is no network any more."""
    with _pushing(replica, arrives=1, answered=1):
        yield


@contextmanager
def _pushing(replica: Replica, *, arrives: int, answered: int) -> Iterator[None]:
    push, pushes = replica.remote.push, count(1)

    def pushed(ops: Any) -> Any:
        number = next(pushes)
        reply = push(ops) if number <= arrives else None
        if number > answered or reply is None:
            raise Unreachable("no answer")
        return reply

    replica.remote.push = pushed  # type: ignore[method-assign]
    try:
        yield
    finally:
        replica.remote.push = push  # type: ignore[method-assign]
