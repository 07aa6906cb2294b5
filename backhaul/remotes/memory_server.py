"""The server behind `MemoryRemote`: one scope, in memory.

Nothing is durable, nothing is fast; everything that `docs/protocol.md` promises about outcomes, versions and the feed
holds, by the same merge as the server's. What only a hostile or broken client would send is not looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import msgspec

from backhaul.clock import BACKFILL_STAMP, Clock, SystemClock, stamp_milliseconds
from backhaul.digest import fingerprint, row_hash
from backhaul.errors import Refused
from backhaul.merge import Change, State, merge
from backhaul.wire import PROBLEM_BASE, Problem, Result, Table, TableDigest, canonical_key

MOST_DRIFT_MS = 60_000
MAKES = ("insert", "backfill")

Address = tuple[str, str]  # of a record: table, canonical key
Target = tuple[str, tuple[str, ...], str]  # a table, columns of it, the canonical text of their values


@dataclass(kw_only=True)
class Op:
    """An op as the server reads it. hlc: as an integer."""

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

    @property
    def group_name(self) -> str:
        """An op without a group is its own."""
        return f"op {self.op}" if self.group is None else f"group {self.group}"


@dataclass(kw_only=True)
class _Replica:
    name: str
    results: list[tuple[str, Result]] = field(default_factory=list)  # by seq - 1: the op id and what became of it


class MemoryServer:
    """clock: what the server's `now` is."""

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
        self.declare(tables)
        self.codes.remove(code)
        replica = f"{next(self._numbers):016x}"
        self.replicas[replica] = _Replica(name=name)
        return replica

    def declare(self, tables: Sequence[Table]) -> None:
        for table in tables:
            if table.name in self.tables and self.tables[table.name].key != table.key:
                raise Refused(f"{table.name} has another key", problem="schema-conflict", status=409)
        self.tables |= {table.name: table for table in tables}

    def push(self, replica: str, ops: Sequence[Op]) -> list[Result]:
        known = self.replicas[replica].results
        _check_sequence(known, ops)
        results = {op.op: _repeated(known[op.seq - 1][1]) for op in ops if op.seq <= len(known)}
        fresh = [op for op in ops if op.seq > len(known)]
        accepted = self._undrifted(fresh)
        settled = self._settle(replica, accepted)
        known.extend((op.op, settled[op.op]) for op in accepted)
        drifted = {op.op: _drifted(op) for op in fresh[len(accepted) :]}
        return [(results | settled | drifted)[op.op] for op in ops]

    def page(self, replica: str, floor: int, after: int, limit: int) -> tuple[list[tuple[Address, State]], int]:
        """The records that one page tells a replica which has seen everything up to the floor, and how far it goes."""
        news = sorted(
            (state.version, address)
            for address, state in self.states.items()
            if state.version > after and (state.born or state.deleted)
        )
        reached = news[limit - 1][0] if len(news) > limit else self.position
        told = [(address, self.states[address]) for version, address in news if version <= reached]
        return [(address, state) for address, state in told if not _is_own(state, replica, floor)], reached

    def found(self, addresses: Iterable[Address]) -> list[tuple[Address, State]]:
        known = [(address, self.states.get(address)) for address in addresses]
        return [(address, state) for address, state in known if state and (state.born or state.deleted)]

    def digest(self) -> list[TableDigest]:
        hashes: dict[str, list[int]] = {name: [] for name in self.tables}
        for (table, key), state in self.states.items():
            if state.born and not state.deleted:
                hashes[table].append(row_hash(table, msgspec.json.decode(key), state.fields))
        return [
            TableDigest(table=name, count=len(some), fingerprint=fingerprint(some)) for name, some in hashes.items()
        ]

    def _undrifted(self, ops: Sequence[Op]) -> Sequence[Op]:
        """The ops before the first whose clock is too far ahead; a group stays whole."""
        latest = self.clock.now() + MOST_DRIFT_MS
        cut = next((index for index, op in enumerate(ops) if stamp_milliseconds(op.hlc) > latest), len(ops))
        while split := {op.group_name for op in ops[:cut]} & {op.group_name for op in ops[cut:]}:
            cut = next(index for index, op in enumerate(ops) if op.group_name in split)
        return ops[:cut]

    def _settle(self, replica: str, ops: Sequence[Op]) -> dict[str, Result]:
        problems = self._problems(replica, ops)
        versions: dict[str, int] = {}
        for op in ops:
            if op.op not in problems and op.group_name not in versions:
                self.position += 1
                versions[op.group_name] = self.position
        for op in sorted(ops, key=lambda op: versions.get(op.group_name, 0)):
            if op.op not in problems and op.kind != "void":
                self._merge(replica, op, versions[op.group_name])
        return {
            op.op: Result(op=op.op, status="rejected", problem=problems[op.op])
            if op.op in problems
            else Result(op=op.op, status="applied", version=versions[op.group_name])
            for op in ops
        }

    def _merge(self, replica: str, op: Op, version: int) -> None:
        hlc = BACKFILL_STAMP if op.kind == "backfill" else op.hlc
        fields = {name: value for name, value in op.fields.items() if name not in self.tables[op.table].key}
        change = Change(kind=op.kind, hlc=hlc, writer=replica, fields=fields)
        self.states[op.address] = merge(self.states.get(op.address), change, version)

    def _problems(self, replica: str, ops: Sequence[Op]) -> dict[str, Problem]:
        """By op id: of the ops that are refused for themselves, then of what depends on a refused one."""
        deleted: set[Address] = set()  # by this push: who deletes a record may use its key again
        problems: dict[str, Problem] = {}
        for op in ops:
            if op.kind == "delete":
                deleted.add(op.address)
            problem = None if op.kind == "void" else self._problem(replica, op, deleted)
            if problem is not None:
                problems[op.op] = problem
        while more := self._dependents([op for op in ops if op.op in problems], ops, problems):
            problems |= more
        return problems

    def _problem(self, replica: str, op: Op, deleted: set[Address]) -> Problem | None:
        table = self.tables.get(op.table)
        if table is None:
            return _problem("table-unknown", f"no table {op.table}", op)
        if op.fields.keys() - {column.name for column in table.columns}:
            return _problem("column-unknown", f"{op.table} has no such column", op)
        if op.kind != "insert" or table.keys != "generated" or op.address in deleted:
            return None
        held = self.states.get(op.address)
        if held and not held.deleted and held.creator != replica and held.born > op.base:
            return _problem("key-taken", "another replica made a record with this key first", op)
        return None

    def _dependents(self, refused: list[Op], ops: Sequence[Op], problems: dict[str, Problem]) -> dict[str, Problem]:
        groups = {op.group_name: op for op in refused}
        records = {op.address: op for op in reversed(refused)}
        targets = {(table, columns) for op in ops for table, columns, _ in self._pointed_at(op)}
        made = {target: op for op in refused for target in self._made(op, targets)}
        found: dict[str, Problem] = {}
        for op in ops:
            earlier = records.get(op.address)
            parents = [made[target] for target in self._pointed_at(op) if target in made]
            causes = [groups.get(op.group_name), earlier if earlier and earlier.seq < op.seq else None, *parents]
            cause = next((cause for cause in causes if cause is not None), None)
            if cause is not None and op.op not in problems:
                found[op.op] = _problem("depends-on-refused", f"depends on the op {cause.op}, which is refused", op)
        return found

    def _pointed_at(self, op: Op) -> Iterator[Target]:
        table = self.tables.get(op.table)
        known = (dict(zip(table.key, op.key, strict=False)) if table else {}) | op.fields
        for reference in table.references if table else ():
            values = [known.get(column) for column in reference.columns]
            if None not in values:
                yield reference.table, tuple(reference.target), canonical_key(values)

    def _made(self, op: Op, targets: Iterable[tuple[str, tuple[str, ...]]]) -> Iterator[Target]:
        table = self.tables.get(op.table)
        if op.kind not in MAKES or table is None:
            return
        values = dict(zip(table.key, op.key, strict=True)) | op.fields
        for name, columns in targets:
            if name == op.table:
                yield name, columns, canonical_key([values.get(column) for column in columns])


def _check_sequence(known: list[tuple[str, Result]], ops: Sequence[Op]) -> None:
    for op in ops:
        if op.seq <= len(known) and known[op.seq - 1][0] != op.op:
            raise Refused(f"number {op.seq} was another op", problem="replica-forked", status=409)
    for expected, op in enumerate((op for op in ops if op.seq > len(known)), start=len(known) + 1):
        if op.seq != expected:
            raise Refused(f"{op.seq} stands where {expected} is due", problem="sequence-gap", status=409)


def _repeated(result: Result) -> Result:
    return msgspec.structs.replace(result, status="duplicate") if result.status == "applied" else result


def _drifted(op: Op) -> Result:
    return Result(op=op.op, status="retry", problem=_problem("clock-drift", "the stamp is too far ahead", op))


def _problem(name: str, detail: str, op: Op) -> Problem:
    return Problem(type=PROBLEM_BASE + name, title=name.replace("-", " "), detail=detail, op=op.op)


def _is_own(state: State, replica: str, floor: int) -> bool:
    """Whether the asker wrote everything that is new, and so knows it."""
    if floor == 0:
        return False
    if state.deleted or state.born > floor:
        return state.writer == replica and all(writer == replica for _, writer, _ in state.stamps.values())
    return all(writer == replica for _, writer, version in state.stamps.values() if version > floor)
