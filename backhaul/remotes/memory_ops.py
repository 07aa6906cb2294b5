"""Ops on their way into a server in memory: as it reads them, and which it refuses, by the rules of a real one.

What only a hostile or broken client would send is not looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backhaul.merge import State
from backhaul.wire import PROBLEM_BASE, Problem, Table, canonical_key

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

    @property
    def says_something(self) -> bool:
        return bool(self.kind != "void")


@dataclass(frozen=True, kw_only=True)
class Refusals:
    """What the ops of one replica are held against: the tables of the scope, and the records that are there."""

    replica: str
    tables: Mapping[str, Table]
    states: Mapping[Address, State]

    def of(self, ops: Sequence[Op], refused: Sequence[Op], why: Mapping[str, Problem]) -> dict[str, Problem]:
        """By op id: first what is refused for itself, then what depends on a refused op, until nothing more does.

        refused, why: the ops that came with these and were refused before.
        """
        problems = dict(why) | self._for_themselves(ops)
        while more := self._dependents([*refused, *ops], problems):
            problems |= more
        return problems

    def _for_themselves(self, ops: Sequence[Op]) -> dict[str, Problem]:
        deleted: set[Address] = set()  # by this push: who deletes a record knows it, and may use its key again
        problems: dict[str, Problem] = {}
        for op in filter(lambda op: op.says_something, ops):
            problem = self._told(op) or (None if op.address in deleted else self._taken(op))
            if problem is not None:
                problems[op.op] = problem
            elif op.kind == "delete":
                deleted.add(op.address)
        return problems

    def _told(self, op: Op) -> Problem | None:
        table = self.tables.get(op.table)
        if table is None:
            return problem_of(op, "table-unknown", f"no table {op.table}")
        if unknown := op.fields.keys() - {column.name for column in table.columns}:
            return problem_of(op, "column-unknown", f"no column {sorted(unknown)[0]} in {op.table}")
        if len(op.key) != len(table.key) or not all(map(_agrees, *_twice(op, table))):
            return problem_of(op, "key-invalid", f"{op.key} is no key of {op.table}, or a field contradicts it")
        return None

    def _taken(self, op: Op) -> Problem | None:
        if op.kind != "insert" or self.tables[op.table].keys != "generated":
            return None
        held = self.states.get(op.address)
        if held is None or held.creator == self.replica:
            return None
        seen = held.version <= op.base or op.hlc > held.hlc if held.deleted else held.born <= op.base
        if seen:
            return None
        return problem_of(op, "key-taken", "another replica made a record with this key first")

    def _dependents(self, ops: Sequence[Op], problems: Mapping[str, Problem]) -> dict[str, Problem]:
        """The ops that depend on a refused one: of its group, later on its record, or pointing at what it makes."""
        refused = [op for op in ops if op.op in problems]
        groups = {op.group_name: op for op in refused}
        first = {op.address: op for op in reversed(refused) if op.says_something}
        targets = {(table, columns) for op in ops for table, columns, _ in self._pointed_at(op)}
        made = {target: op for op in refused for target in self._made(op, targets)}
        found: dict[str, Problem] = {}
        for op in ops:
            causes = [groups.get(op.group_name), *(made.get(target) for target in self._pointed_at(op))]
            earlier = first.get(op.address) if op.says_something else None
            causes.append(earlier if earlier and earlier.seq < op.seq else None)
            cause = next(filter(None, causes), None)
            if cause is not None and op.op not in problems:
                found[op.op] = problem_of(op, "depends-on-refused", f"depends on the op {cause.op}, which is refused")
        return found

    def _pointed_at(self, op: Op) -> Iterator[Target]:
        table = self.tables.get(op.table)
        if table is None or not op.says_something:
            return
        known = dict(zip(table.key, op.key, strict=False)) | op.fields
        for reference in table.references:
            values = [known.get(column) for column in reference.columns]
            if None not in values:
                yield reference.table, tuple(reference.target), canonical_key(values)

    def _made(self, op: Op, targets: Iterable[tuple[str, tuple[str, ...]]]) -> Iterator[Target]:
        """Of a table that no one has said, the columns that are pointed at pass for its key."""
        table = self.tables.get(op.table)
        if op.kind not in MAKES:
            return
        for name, columns in targets:
            if name == op.table:
                known = dict(zip(table.key if table else columns, op.key, strict=False)) | op.fields
                yield name, columns, canonical_key([known.get(column) for column in columns])


def problem_of(op: Op, name: str, detail: str) -> Problem:
    return Problem(type=PROBLEM_BASE + name, title=name.replace("-", " "), detail=detail, op=op.op)


def _twice(op: Op, table: Table) -> tuple[list[Any], list[Any]]:
    """The parts of the key, and the same as the fields say them."""
    return op.key, [op.fields.get(name, part) for name, part in zip(table.key, op.key, strict=True)]


def _agrees(part: Any, said: Any) -> bool:
    return type(part) is type(said) and bool(part == said)
