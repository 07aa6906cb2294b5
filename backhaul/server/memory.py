"""The sync server without a network: the real store over a database in memory, and a replica's way to it.

For tests, of ours and of apps: every message is encoded and decoded as on its way over HTTP, the rules are the
server's own, and nothing is left when the process ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy.pool import StaticPool

from backhaul.clock import Clock, SystemClock
from backhaul.database import Database, open_database
from backhaul.errors import Refused, SignInRequired
from backhaul.merge import Functions, State
from backhaul.schema import server_metadata
from backhaul.server import auth, records
from backhaul.server.feed import Part
from backhaul.server.records import Place
from backhaul.server.store import ServerDatabase, Store, identify
from backhaul.wire import (
    Block,
    Blocks,
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
    Versions,
    Wanted,
    encode,
)

Message = TypeVar("Message")


class MemoryServer:
    """One server with one scope. clock: what its `now` is. functions: what `custom` columns may name."""

    def __init__(
        self, clock: Clock | None = None, *, scope: str = "default", functions: Functions | None = None
    ) -> None:
        self.scope = scope
        self.clock = clock or SystemClock()
        database = _OneAtATime(open_database("sqlite://", poolclass=StaticPool))
        with database.writing() as connection:
            server_metadata.create_all(connection)
        identify(database, self.clock.now())
        self.store = Store(database, functions)

    def enrol(self) -> str:
        """A one-time code."""
        with self.store.database.writing() as connection:
            return auth.enrol(connection, self.scope, self.clock.now())

    @property
    def states(self) -> dict[Place, State]:
        """Every record, by its table and key."""
        with self.store.database.reading() as connection:
            return records.everything(connection, self.scope)

    def close(self) -> None:
        self.store.database.close()


class StoreRemote:
    """A Remote on a store of this process. replica: the one that `register` makes, or one that is registered."""

    def __init__(self, store: Store, clock: Clock, replica: auth.Replica | None = None) -> None:
        self.store = store
        self.replica = replica
        self._owner: auth.Replica | None = None  # whose token it is, where it speaks for one that came of him
        self._clock = clock

    @property
    def signed_in_as(self) -> str | None:
        return None if self.replica is None else self.replica.id

    def register(
        self, code: str, tables: Sequence[Table], name: str, *, was: str = "", nonce: str = "", knows: Versions = ()
    ) -> Registered:
        registration = Registration(code=code, tables=list(tables), name=name, was=was, nonce=nonce, knows=knows)
        with self.store.database.writing() as connection:
            registered = auth.register(connection, registration, self._clock.now(), self.store.functions)
        self.become(registered)
        return _sent(registered, Registered)

    def succeed(self, was: str, knows: Versions = ()) -> Registered:
        with self.store.database.writing() as connection:
            made = auth.succeed(connection, self._asker, was, self._clock.now(), knows)
        self._owner = self._owner or self.replica
        self.replica = auth.Replica(id=made.replica, scope=made.scope)
        return _sent(made, Registered)

    def become(self, registered: Registered) -> None:
        self._owner, self.replica = None, auth.Replica(id=registered.replica, scope=registered.scope)

    def speak_for(self, replica: str) -> None:
        owner = self._owner or self._asker
        with self.store.database.reading() as connection:
            self._owner, self.replica = owner, auth.speaking_for(connection, owner, replica)

    def declare(self, tables: Sequence[Table]) -> list[Table]:
        return _sent(self.store.declare(self._asker.scope, tables, self._asker.id), list[Table])

    def push(self, ops: Sequence[OutgoingOp]) -> Pushed:
        asker = self._asker
        try:
            read = msgspec.json.decode(encode(OutgoingPush(ops=list(ops))), type=Push)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise Refused(str(error), problem="malformed", status=400) from error
        return _sent(self.store.push(asker, read.ops, self._clock.now()), Pushed)

    def pull(self, cursor: str, limit: int, *, sent: int | None = None, settled: int | None = None) -> Page:
        now = self._clock.now()
        return _sent(self.store.pull(self._asker, cursor, limit, now, sent=sent, settled=settled), Page)

    def catch_up(self, cursor: str, limit: int, table: str, columns: Sequence[str]) -> Page:
        part = Part(table=table, columns=frozenset(columns))
        return _sent(self.store.pull(self._asker, cursor, limit, self._clock.now(), part), Page)

    def records(self, keys: Sequence[tuple[str, list[Any]]]) -> list[Record]:
        return _sent(self.store.records(self._asker.scope, keys, self._asker.id), list[Record])

    def blocks(self, wanted: Mapping[str, Wanted]) -> list[Block]:
        return _sent(self.store.blocks(self._asker, wanted, self._clock.now()), Blocks).blocks

    def digest(self) -> Digest:
        return _sent(self.store.digest(self._asker.scope, self._clock.now(), self._asker.id), Digest)

    def close(self) -> None:
        """There is nothing to close: the store stays for the others."""

    @property
    def _asker(self) -> auth.Replica:
        if self.replica is None:
            raise SignInRequired
        return self.replica


class MemoryRemote(StoreRemote):
    """A Remote of one replica of a server in memory."""

    def __init__(self, server: MemoryServer, replica: auth.Replica | None = None) -> None:
        super().__init__(server.store, server.clock, replica)
        self.server = server


class _OneAtATime(ServerDatabase):
    """A database in memory is one connection: who reads waits for his turn, too."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.reading = self.writing  # type: ignore[method-assign]  # the same way in, under the same lock


def _sent(message: object, kind: type[Message]) -> Message:
    """As the other side reads it."""
    return msgspec.json.decode(encode(message), type=kind)
