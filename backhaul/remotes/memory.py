"""A server in memory: the same contract as a real one, for tests, in one process and without a network.

`MemoryServer` is the server, `MemoryRemote` one replica's way to it. Nothing is durable, nothing is fast; everything
that `docs/protocol.md` promises about outcomes, versions and the feed holds, by the same merge as the server's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import msgspec

from backhaul.clock import Clock, SystemClock, stamp_from_text, stamp_to_text
from backhaul.digest import fingerprint, row_hash
from backhaul.errors import Refused, SignInRequired
from backhaul.merge import Change, State, merge
from backhaul.wire import (
    PROBLEM_BASE,
    UNSET,
    Digest,
    OutgoingOp,
    Page,
    Problem,
    Pushed,
    Record,
    Registered,
    Result,
    Table,
    TableDigest,
    canonical_key,
)

Address = tuple[str, str]  # of a record: table, canonical key


@dataclass(kw_only=True)
class _Op:
    """An op as the server reads it."""

    op: str
    seq: int
    table: str
    key: list[Any]
    kind: Any
    hlc: int
    base: int
    group: str | None
    fields: dict[str, Any]

    @property
    def address(self) -> Address:
        return self.table, canonical_key(self.key)


@dataclass(kw_only=True)
class _Replica:
    name: str
    results: list[tuple[str, Result]] = field(default_factory=list)  # by seq - 1: the op id and what became of it


class MemoryServer:
    """One scope. clock: what the server's `now` is."""

    def __init__(self, clock: Clock | None = None, *, scope: str = "default") -> None:
        self.scope = scope
        self.clock = clock or SystemClock()
        self.position = 0
        self.codes: set[str] = set()
        self.tables: dict[str, Table] = {}
        self.replicas: dict[str, _Replica] = {}
        self.states: dict[Address, State] = {}
        self._numbers = count(1)

    def enrol(self) -> str:
        """A one-time code."""
        code = f"code-{next(self._numbers)}"
        self.codes.add(code)
        return code

    def register(self, code: str, tables: Sequence[Table], name: str) -> str:
        if code not in self.codes:
            raise Refused("this code is unknown or spent", problem="code-invalid", status=403)
        self.codes.remove(code)
        replica = f"{next(self._numbers):016x}"
        self.replicas[replica] = _Replica(name=name)
        self.declare(tables)
        return replica

    def declare(self, tables: Sequence[Table]) -> None:
        self.tables |= {table.name: table for table in tables}

    def push(self, replica: str, ops: Sequence[_Op]) -> list[Result]:
        known = self.replicas[replica].results
        _check_sequence(known, ops)
        fresh = [op for op in ops if op.seq > len(known)]
        refused: dict[Address, str] = {}
        born_dead: set[Address] = set()
        outcomes: dict[str, Result] = {}
        for group in _groups(fresh):
            for result in self._group(replica, group, refused, born_dead):
                outcomes[result.op] = result
        repeats = [_repeated(known[op.seq - 1][1]) for op in ops if op.seq <= len(known)]
        known.extend((op.op, outcomes[op.op]) for op in fresh)
        return repeats + [outcomes[op.op] for op in fresh]

    def page(self, replica: str, since: int, limit: int) -> tuple[list[tuple[Address, State]], int]:
        """The records that one page tells of, and the position it reaches."""
        news = sorted(
            (state.version, address, state)
            for address, state in self.states.items()
            if state.version > since and (state.born or state.deleted)
        )  # no two have the same version and address, so states are never compared
        reached = news[limit - 1][0] if len(news) > limit else self.position
        return [
            (address, state)
            for version, address, state in news
            if version <= reached and not _is_own(state, replica, since)
        ], reached

    def whole(self, addresses: Iterable[Address]) -> list[Record]:
        found = [(address, self.states.get(address)) for address in addresses]
        return [_entry(address, state, 0) for address, state in found if state and (state.born or state.deleted)]

    def digest(self) -> list[TableDigest]:
        hashes: dict[str, list[int]] = {name: [] for name in self.tables}
        for (table, key), state in self.states.items():
            if state.born and not state.deleted:
                hashes[table].append(row_hash(table, msgspec.json.decode(key), state.fields))
        return [
            TableDigest(table=name, count=len(some), fingerprint=fingerprint(some)) for name, some in hashes.items()
        ]

    def _group(
        self, replica: str, group: list[_Op], refused: dict[Address, str], born_dead: set[Address]
    ) -> list[Result]:
        """All of them or none, under one version."""
        for op in group:
            problem = self._problem(replica, op, refused, born_dead)
            if problem is not None:
                return self._refuse(group, op, problem, refused, born_dead)
        self.position += 1
        for op in group:
            if op.kind != "void":
                change = Change(kind=op.kind, hlc=op.hlc, writer=replica, fields=op.fields)
                self.states[op.address] = merge(self.states.get(op.address), change, self.position)
        return [Result(op=op.op, status="applied", version=self.position) for op in group]

    def _problem(self, replica: str, op: _Op, refused: dict[Address, str], born_dead: set[Address]) -> Problem | None:
        if op.kind == "void":
            return None
        table = self.tables.get(op.table)
        if table is None:
            return _problem("table-unknown", f"no table {op.table}", op.op)
        cause = refused.get(op.address) or self._missing_parent(table, op, refused, born_dead)
        if cause is not None:
            return _problem("depends-on-refused", f"depends on {cause}, which was refused", op.op)
        held = self.states.get(op.address)
        taken = held and held.born > op.base and not held.deleted and held.creator != replica
        if op.kind == "insert" and table.keys == "generated" and taken:
            return _problem("key-taken", "another replica made a record with this key first", op.op)
        return None

    def _missing_parent(
        self, table: Table, op: _Op, refused: dict[Address, str], born_dead: set[Address]
    ) -> str | None:
        """The refused insert that a foreign key of this op points at."""
        for reference in table.references:
            values = dict(zip(reference.target, (op.fields.get(name) for name in reference.columns), strict=True))
            parent = self.tables.get(reference.table)
            if parent is None or set(parent.key) != set(values):
                continue
            address = (parent.name, canonical_key([values[name] for name in parent.key]))
            if address in born_dead:
                return refused[address]
        return None

    def _refuse(
        self, group: list[_Op], culprit: _Op, problem: Problem, refused: dict[Address, str], born_dead: set[Address]
    ) -> list[Result]:
        results = []
        for op in group:
            refused.setdefault(op.address, culprit.op)
            if op.kind == "insert":
                born_dead.add(op.address)
            its = problem if op is culprit else _problem("depends-on-refused", f"its group holds {culprit.op}", op.op)
            results.append(Result(op=op.op, status="rejected", problem=its))
        return results


class MemoryRemote:
    """A Remote of one replica: of the one that `register` makes, or of a registered one."""

    def __init__(self, server: MemoryServer, replica: str | None = None) -> None:
        self.server = server
        self.replica = replica

    def register(self, code: str, tables: Sequence[Table], name: str) -> Registered:
        self.replica = self.server.register(code, tables, name)
        return Registered(
            replica=self.replica, token=f"token-{self.replica}", scope=self.server.scope, now=self.server.clock.now()
        )

    def declare(self, tables: Sequence[Table]) -> None:
        self._signed_in()
        self.server.declare(tables)

    def push(self, ops: Sequence[OutgoingOp]) -> Pushed:
        results = self.server.push(self._signed_in(), [_read(op) for op in ops])
        return Pushed(results=results, now=self.server.clock.now())

    def pull(self, cursor: str, limit: int) -> Page:
        server, replica = self.server, self._signed_in()
        since = _since(cursor)
        news, reached = server.page(replica, since, limit)
        return Page(
            records=[_entry(address, state, since) for address, state in news],
            cursor=f"at {reached}",
            position=reached,
            head=server.position,
            more=reached < server.position,
            hlc=stamp_to_text(max((_highest(state) for _, state in news), default=0)),
            now=server.clock.now(),
        )

    def records(self, keys: Sequence[tuple[str, list[Any]]]) -> list[Record]:
        self._signed_in()
        return self.server.whole((table, canonical_key(key)) for table, key in keys)

    def digest(self) -> Digest:
        self._signed_in()
        server = self.server
        return Digest(tables=server.digest(), position=server.position, now=server.clock.now())

    def close(self) -> None:
        """There is nothing to close."""

    def _signed_in(self) -> str:
        if self.replica not in self.server.replicas:
            raise SignInRequired
        return self.replica or ""


def _read(op: OutgoingOp) -> _Op:
    return _Op(
        op=op.op,
        seq=op.seq,
        table=op.table,
        key=msgspec.json.decode(op.key),
        kind=op.kind,
        hlc=stamp_from_text(op.hlc),
        base=op.base,
        group=op.group,
        fields={} if op.fields is UNSET else msgspec.json.decode(op.fields),
    )


def _check_sequence(known: list[tuple[str, Result]], ops: Sequence[_Op]) -> None:
    expected = ops[0].seq if ops else 0
    if expected > len(known) + 1:
        raise Refused(f"after {len(known)} comes not {expected}", problem="sequence-gap", status=409)
    for op in ops:
        if op.seq != expected:
            raise Refused(f"{op.seq} stands where {expected} is due", problem="sequence-gap", status=409)
        if op.seq <= len(known) and known[op.seq - 1][0] != op.op:
            raise Refused(f"number {op.seq} was another op", problem="replica-forked", status=409)
        expected += 1


def _groups(ops: Sequence[_Op]) -> list[list[_Op]]:
    """In the order of their first ops; an op without a group is its own."""
    groups: dict[str, list[_Op]] = {}
    for op in ops:
        groups.setdefault(f"group {op.group}" if op.group is not None else f"op {op.op}", []).append(op)
    return list(groups.values())


def _repeated(result: Result) -> Result:
    return msgspec.structs.replace(result, status="duplicate") if result.status == "applied" else result


def _problem(name: str, detail: str, op: str) -> Problem:
    return Problem(type=PROBLEM_BASE + name, title=name.replace("-", " "), detail=detail, op=op)


def _is_own(state: State, replica: str, since: int) -> bool:
    """Whether the asker wrote everything that is new, and so knows it."""
    if since == 0:
        return False
    if state.deleted:
        return state.writer == replica
    stamps = [state.stamp(name) for name in state.fields]
    return all(writer == replica for _, writer, version in stamps if version > since or state.born > since)


def _entry(address: Address, state: State, since: int) -> Record:
    """Through JSON, as over the wire: the reader gets the values that a client of the real server gets."""
    whole = not state.deleted and (state.born > since or since == 0)
    fields = {name: value for name, value in state.fields.items() if whole or state.stamp(name)[2] > since}
    return msgspec.convert(
        {
            "table": address[0],
            "key": msgspec.json.decode(address[1]),
            "version": state.version,
            "whole": whole,
            "deleted": state.deleted,
            "fields": fields,
        },
        type=Record,
    )


def _highest(state: State) -> int:
    return max([state.hlc, *(stamp[0] for stamp in state.stamps.values())])


def _since(cursor: str) -> int:
    """The position that a cursor stands for."""
    if not cursor:
        return 0
    word, _, number = cursor.partition(" ")
    if word != "at" or not number.isdigit():
        raise Refused("this cursor is not of this feed", problem="cursor-invalid", status=400)
    return int(number)
