"""The way between a replica and its server, as bad as it gets, and the book of what went over it.

Requests do not arrive, answers are lost, requests arrive twice or once more much later, processes die at either end
of a call, and other processes of the same replica do their work while a call is under way.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from backhaul.errors import Busy, Refused, Unreachable
from backhaul.remotes.base import Remote
from backhaul.wire import Block, Digest, OutgoingOp, Page, Pushed, Record, Registered, Table, Wanted

Said = tuple[str, str, str, str]  # kind, table, key, fields: one change, however often it is sent
MERGED = "shelf"  # the table of which changes say what was done, not what is there now
POISON = b"poison"
FINAL = ("applied", "rejected")


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


@dataclass
class Book:
    """What the server took from one replica. Raises AssertionError when a change takes effect twice."""

    outcomes: dict[int, tuple[str, str]] = field(default_factory=dict)  # by send seq: op id, first outcome
    applied: Counter[Said] = field(default_factory=Counter)
    merged: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # of MERGED, what was applied: key, fields

    def enter(self, ops: Sequence[OutgoingOp], reply: Pushed) -> None:
        for op, result in zip(ops, reply.results, strict=True):
            known = self.outcomes.get(op.seq)
            assert known is None or known[0] == op.op, f"number {op.seq} was given to two ops"
            assert result.status != "applied" or known is None, f"number {op.seq} took effect twice"
            if known is None and result.status in FINAL:
                self.outcomes[op.seq] = (op.op, result.status)
                if result.status == "applied" and op.kind != "void":
                    self._applied(op)

    def _applied(self, op: OutgoingOp) -> None:
        text, key = bytes(op.fields).decode() if op.fields else None, bytes(op.key).decode()
        self.applied[said(op.kind, op.table, key, text)] += 1
        if op.table == MERGED and text:
            self.merged.append((key, json.loads(text)))


def said(kind: str, table: str, key: str, fields: str | None) -> Said:
    """A change as it can be told from others: of MERGED by its columns alone, for their values are not sent as such."""
    members = json.loads(fields or "{}")
    return kind, table, key, json.dumps(sorted(members) if table == MERGED else members, sort_keys=True)


class Network:
    """A Remote that has the weather between itself and another one.

    most_ops: a message that holds more is refused whole, and so is one that holds POISON: always, as a server does.
    meanwhile: what other processes of this replica do while a call is under way; it calls journeys itself.
    """

    def __init__(self, remote: Remote, random: Random, most_ops: int, meanwhile: Callable[[], None]) -> None:
        self.weather = Weather.calm()
        self.book = Book()
        self._most_ops = most_ops
        self._remote = remote
        self._random = random
        self._meanwhile = meanwhile
        self._late: list[Sequence[OutgoingOp]] = []
        self._depth = 0

    def push(self, ops: Sequence[OutgoingOp]) -> Pushed:
        self._on_the_way(ops)
        self._check(ops)
        reply = self._deliver(ops)
        if self._happens(self.weather.twice):
            reply = self._deliver(ops)
        if self._happens(self.weather.late):
            self._late.append(ops)
        self._on_the_way_back()
        return reply

    def pull(self, cursor: str, limit: int, **said: Any) -> Page:
        self._on_the_way()
        page = self._remote.pull(cursor, limit, **said)
        self._on_the_way_back()
        return page

    def records(self, keys: Sequence[tuple[str, list[Any]]]) -> list[Record]:
        self._on_the_way()
        found = self._remote.records(keys)
        self._on_the_way_back()
        return found

    @property
    def signed_in_as(self) -> str | None:
        return self._remote.signed_in_as

    def register(self, code: str, tables: Sequence[Table], name: str, *, was: str = "", nonce: str = "") -> Registered:
        return self._remote.register(code, tables, name, was=was, nonce=nonce)

    def succeed(self, was: str) -> Registered:
        self._on_the_way()
        return self._remote.succeed(was)

    def blocks(self, wanted: Mapping[str, Wanted]) -> list[Block]:
        self._on_the_way()
        found = self._remote.blocks(wanted)
        self._on_the_way_back()
        return found

    def declare(self, tables: Sequence[Table]) -> list[Table]:
        return self._remote.declare(tables)

    def digest(self) -> Digest:
        return self._remote.digest()

    def close(self) -> None:
        self._remote.close()

    def deliver_late(self) -> None:
        """What hung in the network arrives now; nobody waits for its answer."""
        late, self._late = self._late, []
        for ops in late:
            with suppress(Refused):
                self._check(ops)
                self._deliver(ops)

    def _check(self, ops: Sequence[OutgoingOp]) -> None:
        if len(ops) > self._most_ops:
            raise Refused("too much at once", problem="batch-too-large", status=413)
        if any(POISON in bytes(op.fields) for op in ops if op.fields):
            raise Refused("this is not JSON", problem="malformed", status=400)

    def _deliver(self, ops: Sequence[OutgoingOp]) -> Pushed:
        reply = self._remote.push(ops)
        self.book.enter(ops, reply)
        return reply

    def _on_the_way(self, ops: Sequence[OutgoingOp] = ()) -> None:
        self._others_work()
        if self._happens(self.weather.killed):
            raise Killed
        if self._happens(self.weather.unsent):
            if ops and self._happens(0.5):
                self._late.append(ops)
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
