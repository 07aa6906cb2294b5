"""The server behind `MemoryRemote`: one scope, in memory.

Nothing is durable, nothing is fast; everything that `docs/protocol.md` promises about outcomes, versions and the feed
holds, by the same merge as the server's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex

import msgspec

from backhaul.clock import BACKFILL_STAMP, Clock, SystemClock, stamp_milliseconds
from backhaul.digest import fingerprint, row_hash
from backhaul.errors import Refused
from backhaul.merge import Change, State, merge
from backhaul.remotes.memory_feed import Feed
from backhaul.remotes.memory_ops import Address, Op, Refusals, problem_of
from backhaul.wire import Problem, Result, Table, TableDigest

MOST_DRIFT_MS = 60_000
STAMPED = ("insert", "update", "delete")  # the kinds whose stamp counts


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
        self._name = token_hex(8)
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
        for table in tables:
            self.tables[table.name] = _union(self.tables.get(table.name, table), table)

    @property
    def feed(self) -> Feed:
        return Feed(name=self._name, head=self.position, states=self.states)

    def push(self, replica: str, ops: Sequence[Op]) -> list[Result]:
        known = self.replicas[replica].results
        _check_sequence(known, ops)
        results = {op.op: _repeated(known[op.seq - 1][1]) for op in ops if op.seq <= len(known)}
        fresh = [op for op in ops if op.seq > len(known)]
        accepted = self._undrifted(fresh)
        before = {op.op: results[op.op].problem for op in ops if op.op in results}
        refused = {op: problem for op, problem in before.items() if problem is not None}
        settled = self._settle(replica, accepted, [op for op in ops if op.op in refused], refused)
        known.extend((op.op, settled[op.op]) for op in accepted)
        drifted = {op.op: _drifted(op) for op in fresh[len(accepted) :]}
        return [(results | settled | drifted)[op.op] for op in ops]

    def found(self, addresses: Iterable[Address]) -> list[tuple[Address, State]]:
        known = [(address, self.states.get(address)) for address in addresses]
        return [(address, state) for address, state in known if state and (state.born or state.deleted)]

    def digest(self) -> list[TableDigest]:
        hashes: dict[str, list[int]] = {name: [] for name in sorted(self.tables)}
        for (table, key), state in self.states.items():
            if state.born and not state.deleted:
                hashes[table].append(row_hash(table, msgspec.json.decode(key), state.fields))
        return [
            TableDigest(table=name, count=len(some), fingerprint=fingerprint(some)) for name, some in hashes.items()
        ]

    def _undrifted(self, ops: Sequence[Op]) -> Sequence[Op]:
        """The ops before the first whose clock is too far ahead; a group stays whole."""
        latest = self.clock.now() + MOST_DRIFT_MS
        ahead = (op.kind in STAMPED and stamp_milliseconds(op.hlc) > latest for op in ops)
        cut = next((index for index, drifted in enumerate(ahead) if drifted), len(ops))
        while split := {op.group_name for op in ops[:cut]} & {op.group_name for op in ops[cut:]}:
            cut = next(index for index, op in enumerate(ops) if op.group_name in split)
        return ops[:cut]

    def _settle(
        self, replica: str, ops: Sequence[Op], refused: Sequence[Op], why: Mapping[str, Problem]
    ) -> dict[str, Result]:
        """refused, why: the ops of this push that were refused before."""
        problems = Refusals(replica=replica, tables=self.tables, states=self.states).of(ops, refused, why)
        versions: dict[str, int] = {}
        for op in ops:
            if op.op not in problems and op.group_name not in versions:
                self.position += 1
                versions[op.group_name] = self.position
        for op in sorted(ops, key=lambda op: versions.get(op.group_name, 0)):
            if op.op not in problems and op.says_something:
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


def _check_sequence(known: list[tuple[str, Result]], ops: Sequence[Op]) -> None:
    for op in ops:
        if op.seq <= len(known) and known[op.seq - 1][0] != op.op:
            raise Refused(f"number {op.seq} was another op", problem="replica-forked", status=409)
    for expected, op in enumerate((op for op in ops if op.seq > len(known)), start=len(known) + 1):
        if op.seq != expected:
            raise Refused(f"{op.seq} stands where {expected} is due", problem="sequence-gap", status=409)


def _union(old: Table, new: Table) -> Table:
    """What both say; nothing is ever taken away, and a generated key stays one."""
    names = {column.name for column in old.columns}
    return Table(
        name=old.name,
        columns=old.columns + [column for column in new.columns if column.name not in names],
        key=old.key,
        keys="generated" if "generated" in (old.keys, new.keys) else "natural",
        references=old.references + [one for one in new.references if one not in old.references],
    )


def _repeated(result: Result) -> Result:
    return msgspec.structs.replace(result, status="duplicate") if result.status == "applied" else result


def _drifted(op: Op) -> Result:
    return Result(op=op.op, status="retry", problem=problem_of(op, "clock-drift", "the stamp is too far ahead"))
