"""The servers that a simulation runs against: the real store, in this process, and the one in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from backhaul.clock import Clock
from backhaul.database import open_database
from backhaul.errors import Refused
from backhaul.remotes.base import Remote
from backhaul.remotes.memory import MemoryRemote
from backhaul.remotes.memory_server import MemoryServer
from backhaul.server import auth
from backhaul.server.store import ServerDatabase, Store, prepare
from backhaul.wire import (
    Digest,
    OutgoingOp,
    OutgoingPush,
    Page,
    Push,
    Pushed,
    Record,
    Registered,
    Registration,
    Table,
    encode,
)

SCOPE = "simulated"


@dataclass(frozen=True, kw_only=True)
class Server:
    """connect: a remote that is not registered yet. enrol: a one-time code."""

    connect: Callable[[], Remote]
    enrol: Callable[[], str]


@contextmanager
def memory_server(_folder: Path, clock: Clock) -> Iterator[Server]:
    server = MemoryServer(clock, scope=SCOPE)
    yield Server(connect=lambda: MemoryRemote(server), enrol=server.enrol)


@contextmanager
def store_server(folder: Path, clock: Clock) -> Iterator[Server]:
    database = ServerDatabase(open_database(f"sqlite:///{folder / 'server.sqlite'}"))
    prepare(database, clock.now())
    store = Store(database)

    def enrol() -> str:
        with database.writing() as connection:
            return auth.enrol(connection, SCOPE, clock.now())

    yield Server(connect=lambda: StoreRemote(store, clock), enrol=enrol)
    database.close()


class StoreRemote:
    """A Remote on a store of this process: every message is encoded and decoded, as on its way over HTTP.

    replica: the one that `register` makes, or one that is registered.
    """

    def __init__(self, store: Store, clock: Clock, replica: auth.Replica | None = None) -> None:
        self.store = store
        self.replica = replica
        self._clock = clock

    def register(self, code: str, tables: Sequence[Table], name: str) -> Registered:
        registration = Registration(code=code, tables=list(tables), name=name)
        with self.store.database.writing() as connection:
            registered = auth.register(connection, registration, self._clock.now())
        self.replica = auth.Replica(id=registered.replica, scope=registered.scope)
        return registered

    def declare(self, tables: Sequence[Table]) -> list[Table]:
        return self.store.declare(self._asker.scope, tables)

    def push(self, ops: Sequence[OutgoingOp]) -> Pushed:
        try:
            read = msgspec.json.decode(encode(OutgoingPush(ops=list(ops))), type=Push)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise Refused(str(error), problem="malformed", status=400) from error
        return _sent(self.store.push(self._asker, read.ops, self._clock.now()), Pushed)

    def pull(self, cursor: str, limit: int) -> Page:
        return _sent(self.store.pull(self._asker, cursor, limit, self._clock.now()), Page)

    def records(self, keys: Sequence[tuple[str, list[Any]]]) -> list[Record]:
        return _sent(self.store.records(self._asker.scope, keys), list[Record])

    def digest(self) -> Digest:
        return _sent(self.store.digest(self._asker.scope, self._clock.now()), Digest)

    def close(self) -> None:
        """There is nothing to close."""

    @property
    def _asker(self) -> auth.Replica:
        assert self.replica is not None, "register first"
        return self.replica


def _sent(message: Any, kind: Any) -> Any:
    return msgspec.json.decode(encode(message), type=kind)
