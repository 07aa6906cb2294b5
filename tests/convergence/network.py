"""The way between a replica and its server, as bad as it gets.

Requests do not arrive, answers are lost, requests arrive twice or once more much later, processes die at either end
of a call, and other processes of the same replica do their work while a call is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from backhaul.errors import Busy, Refused, Unreachable
from backhaul.server.auth import Replica as Identity
from backhaul.server.memory import StoreRemote
from backhaul.wire import Block, Digest, OutgoingOp, Page, Pushed, Record, Registered, Table, Versions, Wanted
from tests.convergence.journal import Journal

POISON = b"poison"


class Killed(BaseException):
    """The process is gone: no handler of ours runs after this but those that a dead process would not have run."""


@dataclass(kw_only=True)
class Weather:
    """How likely each misfortune is, per call."""

    unsent: float = 0.08
    lost: float = 0.10
    twice: float = 0.05
    late: float = 0.05
    killed: float = 0.04
    busy: float = 0.03
    meanwhile: float = 0.35

    @classmethod
    def calm(cls) -> Weather:
        return cls(unsent=0, lost=0, twice=0, late=0, killed=0, busy=0, meanwhile=0)


class Network:
    """A Remote that has the weather between itself and another one.

    number: of the replica. most_ops: a message that holds more is refused whole, and so is one that holds POISON:
    always, as a server does.
    meanwhile: what other processes of this replica do while a call is under way; it calls journeys itself.
    """

    def __init__(
        self,
        remote: StoreRemote,
        journal: Journal,
        random: Random,
        number: int,
        most_ops: int,
        meanwhile: Callable[[], None],
    ) -> None:
        self.weather = Weather.calm()
        self.journal = journal
        self.number = number
        self._most_ops = most_ops
        self._remote = remote
        self._random = random
        self._meanwhile = meanwhile
        self._late: list[tuple[Identity | None, Sequence[OutgoingOp]]] = []
        self._depth = 0

    def push(self, ops: Sequence[OutgoingOp]) -> Pushed:
        asker = self.identity  # says the message, whoever signs in anew while it is on its way
        self._on_the_way(ops)
        self._check(ops)
        reply = self._deliver(ops, asker)
        if self._happens(self.weather.twice):
            reply = self._deliver(ops, asker)
        if self._happens(self.weather.late):
            self._late.append((asker, ops))
        self._on_the_way_back()
        return reply

    def pull(self, cursor: str, limit: int, **said: Any) -> Page:
        self._on_the_way()
        page = self._remote.pull(cursor, limit, **said)
        self._on_the_way_back()
        return page

    def catch_up(self, cursor: str, limit: int, table: str, columns: Sequence[str]) -> Page:
        self._on_the_way()
        page = self._remote.catch_up(cursor, limit, table, columns)
        self._on_the_way_back()
        return page

    def records(self, keys: Sequence[tuple[str, list[Any]]]) -> list[Record]:
        self._on_the_way()
        found = self._remote.records(keys)
        self._on_the_way_back()
        return found

    @property
    def identity(self) -> Identity | None:
        """The token: whom the server takes this for."""
        return self._remote.replica

    @identity.setter
    def identity(self, identity: Identity | None) -> None:
        self._remote.replica = identity

    @property
    def signed_in_as(self) -> str | None:
        return self._remote.signed_in_as

    def register(
        self, code: str, tables: Sequence[Table], name: str, *, was: str = "", nonce: str = "", knows: Versions = ()
    ) -> Registered:
        return self._remote.register(code, tables, name, was=was, nonce=nonce, knows=knows)

    def succeed(self, was: str, knows: Versions = ()) -> Registered:
        self._on_the_way()
        before = self.identity
        registered = self._remote.succeed(was, knows)
        try:
            self._on_the_way_back()
        except BaseException:
            self.identity = before  # nobody has stored the new token
            raise
        return registered

    def become(self, registered: Registered) -> None:
        self._remote.become(registered)

    def speak_for(self, replica: str) -> None:
        self._on_the_way()
        self._remote.speak_for(replica)

    def blocks(self, wanted: Mapping[str, Wanted]) -> list[Block]:
        self._on_the_way()
        found = self._remote.blocks(wanted)
        self._on_the_way_back()
        return found

    def declare(self, tables: Sequence[Table]) -> list[Table]:
        self._on_the_way()
        agreed = self._remote.declare(tables)
        self._on_the_way_back()
        return agreed

    def digest(self) -> Digest:
        return self._remote.digest()

    def close(self) -> None:
        self._remote.close()

    def deliver_late(self) -> None:
        """What hung in the network arrives now; nobody waits for its answer."""
        late, self._late = self._late, []
        for asker, ops in late:
            with suppress(Refused):
                self._check(ops)
                self._deliver(ops, asker)

    def _check(self, ops: Sequence[OutgoingOp]) -> None:
        if len(ops) > self._most_ops:
            raise Refused("too much at once", problem="batch-too-large", status=413)
        if any(POISON in bytes(op.fields) for op in ops if op.fields):
            raise Refused("this is not JSON", problem="malformed", status=400)

    def _deliver(self, ops: Sequence[OutgoingOp], asker: Identity | None) -> Pushed:
        now, self.identity = self.identity, asker
        try:
            reply = self._remote.push(ops)
            self.journal.enter(self.number, self.signed_in_as or "", ops, reply)
        finally:
            self.identity = now
        return reply

    def _on_the_way(self, ops: Sequence[OutgoingOp] = ()) -> None:
        asker = self.identity
        self._others_work()
        if self._happens(self.weather.killed):
            raise Killed
        if self._happens(self.weather.unsent):
            if ops and self._happens(0.5):
                self._late.append((asker, ops))
            raise Unreachable("it did not arrive in time")
        if self._happens(self.weather.busy):
            raise Busy("not now", retry_after_ms=self._random.randrange(60_000))

    def _on_the_way_back(self) -> None:
        self._others_work()
        if self._happens(self.weather.killed):
            raise Killed
        if self._happens(self.weather.lost):
            raise Unreachable("the answer was lost")

    def _others_work(self) -> None:
        if self._depth < 2 and self._happens(self.weather.meanwhile):
            self._depth += 1
            try:
                self._meanwhile()
            finally:
                self._depth -= 1

    def _happens(self, likelihood: float) -> bool:
        return self._random.random() < likelihood
