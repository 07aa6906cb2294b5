"""Which ops of a push may be applied: each op on its own, then what depends on a refused one. Pure; no SQL.

An op is refused for what it says (a table, a column, a key, a value that cannot be), because its generated key is
taken, or because of another: a later op on the same record, an op of the same group, or an op with a foreign key to
a record that a refused op would have made. Refusal spreads along these until nothing more is reached, in one pass
over the ops, however long the chains are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from backhaul.clock import BACKFILL_STAMP, stamp_from_text
from backhaul.merge import ALONE, Change, Lineage, State, unusable
from backhaul.server import preview
from backhaul.server.problems import is_conflict, problem
from backhaul.server.records import Place
from backhaul.server.tables import Shape
from backhaul.wire import MOST_VALUE, Op, Problem, Tagged, Value, canonical_key

MAKES = ("insert", "backfill")
Target = tuple[str, tuple[str, ...], str]  # a table, columns of it, and the canonical text of their values


class Item(msgspec.Struct, kw_only=True, gc=False):
    """An op on its way in. place: its record, as far as it has one. problem: why it is refused, or is a conflict.

    roots: the aggregates that it changes.
    """

    op: Op
    place: Place | None = None
    change: Change | None = None  # None: nothing to apply (a void op, or one that is refused for what it says)
    problem: Problem | None = None
    roots: tuple[Place, ...] = ()


def read(op: Op, shapes: Mapping[str, Shape], replica: str, lineage: Lineage = ALONE) -> Item:
    """The op of this replica held against its table."""
    if op.kind == "void":
        return Item(op=op)
    item = Item(op=op, place=(op.table, canonical_key(op.key)))
    shape = shapes.get(op.table)
    item.problem = _told(op, shape)
    if item.problem is None and shape is not None:
        said = _without_key(op, shape)
        fields = _plain(said)
        if fields is not said or shape.strategies.columns:
            wrong = unusable(op.kind, fields, shape.strategies)
            if wrong is not None:
                item.problem = problem(wrong.problem, wrong.detail, op=op.op)
                return item
        hlc = BACKFILL_STAMP if op.kind == "backfill" else stamp_from_text(op.hlc)
        item.change = Change(kind=op.kind, hlc=hlc, writer=replica, fields=fields, base=op.base, lineage=lineage)
    return item


def refuse(items: Sequence[Item], states: Mapping[Place, State], shapes: Mapping[str, Shape]) -> None:
    """Give a problem to each op whose key is taken, and then to all that depends on a refused one."""
    _refuse_taken_keys(items, states, shapes)
    preview.object_to(items, states, shapes)
    reached = [index for index, item in enumerate(items) if item.problem and not is_conflict(item.problem)]
    if reached:
        spread(items, reached, shapes, _because_refused)


def _because_refused(op: Op, cause: Op) -> Problem:
    return problem("depends-on-refused", f"depends on the op {cause.op}, which is refused", op=op.op)


def _told(op: Op, shape: Shape | None) -> Problem | None:
    """What is wrong with the op on its own."""
    if shape is None:
        return problem("table-unknown", f"no table {op.table:.80} in this scope", op=op.op)
    fields = op.fields
    if not shape.columns.issuperset(fields):
        unknown = sorted(fields.keys() - shape.columns)[0]
        return problem("column-unknown", f"no column {unknown:.80} in {op.table}", op=op.op)
    if len(op.key) != len(shape.key):
        return problem("key-invalid", f"the key of {op.table} has {len(shape.key)} parts", op=op.op)
    for name, part in zip(shape.key, op.key, strict=True):
        if type(part) is not str and not _can_be_key(part):
            return problem("key-invalid", "a part of a key is a string, an integer, a boolean or bytes", op=op.op)
        said = fields.get(name, part)
        if said is not part and (type(said) is not type(part) or said != part):
            return problem("key-invalid", f"the field {name} is not what the key says", op=op.op)
    if fields and op.kind == "delete":
        return problem("fields-invalid", "a delete has no fields", op=op.op)
    for value in fields.values():
        if (len(value) > MOST_VALUE) if type(value) is str else (type(value) is Tagged and _is_too_large(value)):
            return problem(
                "value-too-large", f"a value may have {MOST_VALUE} characters or bytes", op=op.op, limit=MOST_VALUE
            )
    return None


def _can_be_key(part: Value) -> bool:
    if type(part) is Tagged:
        return part == Tagged(hex=part.hex) and part.hex is not UNSET
    return part is not None and type(part) is not float


def _is_too_large(value: Tagged) -> bool:
    return value.hex is not UNSET and len(value.hex) > 2 * MOST_VALUE


def _without_key(op: Op, shape: Shape) -> dict[str, Value]:
    """The fields beside the key: the key says itself, and is kept once."""
    for name in shape.key:
        if name in op.fields:
            return {name: value for name, value in op.fields.items() if name not in shape.key}
    return op.fields


def _plain(fields: dict[str, Value]) -> dict[str, Any]:
    """The values as JSON decodes them, which is how the stored ones come."""
    for one in fields.values():
        if type(one) is Tagged:
            return {name: msgspec.to_builtins(value) for name, value in fields.items()}
    return fields


def _refuse_taken_keys(items: Sequence[Item], states: Mapping[Place, State], shapes: Mapping[str, Shape]) -> None:
    """Two replicas gave one generated key to two records, neither knowing: they are never merged into one."""
    deleted: set[Place] = set()  # by this push: who deletes a record knows it, and may use its key again
    for item in items:
        if item.change is None or item.place is None:
            continue
        if item.change.kind == "delete":
            deleted.add(item.place)
            continue
        made_up = item.change.kind in MAKES and shapes[item.op.table].generated and item.place not in deleted
        if made_up and _is_anothers(states.get(item.place), item.op, item.change):
            detail = f"{item.op.table} {item.place[1]} is a record of another replica"
            item.problem = problem("key-taken", detail, op=item.op.op)


def _is_anothers(state: State | None, op: Op, change: Change) -> bool:
    """Whether the key is a record of another replica that the inserter had not seen, or was one, and deleted since:
    then the insert would be without effect, and its row lost."""
    if state is None or change.is_by(state.creator, state.born):
        return False
    if change.kind == "backfill":
        return _was_inserted(state) and _says_else(state, change) and state.born > op.base
    if state.deleted:
        return state.version > op.base and change.hlc <= state.hlc
    if op.former and state.creator in change.lineage.known and not _says_else(state, change):
        return False  # its own, sent before and forgotten as such
    return state.born > op.base


def _was_inserted(state: State) -> bool:
    """Rows that were there before two replicas began are one record; a row that was inserted since is another one,
    unless it says the same."""
    return not state.deleted and state.born > 0 and state.hlc > BACKFILL_STAMP


def _says_else(state: State, change: Change) -> bool:
    return any(state.fields.get(name) != value for name, value in change.fields.items())


def spread(
    items: Sequence[Item], reached: list[int], shapes: Mapping[str, Shape], told: Callable[[Op, Op], Problem]
) -> None:
    """Give a problem to all that depends on the items at these indexes. told: the problem, of an op and its cause."""
    dependents = _Dependents(items, shapes)
    while reached:
        cause = reached.pop()
        for index in dependents.of(cause):
            if items[index].problem is None:
                items[index].problem = told(items[index].op, items[cause].op)
                reached.append(index)


class _Dependents:
    """Who depends on whom in a push: by group, by record, by foreign key."""

    def __init__(self, items: Sequence[Item], shapes: Mapping[str, Shape]) -> None:
        self._items = items
        self._shapes = shapes
        self._by_group: dict[str, list[int]] = defaultdict(list)
        self._by_place: dict[Place, list[int]] = defaultdict(list)
        self._by_root: dict[Place, list[int]] = defaultdict(list)
        self._by_target: dict[Target, list[int]] = defaultdict(list)
        for index, item in enumerate(items):
            self._enter(index, item)
        self._targets = {(table, columns) for table, columns, _ in self._by_target}

    def of(self, cause: int) -> Iterator[int]:
        """Each list is walked once: whoever is refused by it has refused the rest of it, too."""
        item = self._items[cause]
        if item.op.group is not None:
            yield from self._by_group.pop(item.op.group, ())
        if item.place is not None:
            yield from self._later(item.place, cause)
        for root in item.roots:
            yield from self._by_root.pop(root, ())
        if item.op.kind in MAKES:
            for target in self._made(item.op):
                yield from self._by_target.pop(target, ())

    def _enter(self, index: int, item: Item) -> None:
        if item.op.group is not None:
            self._by_group[item.op.group].append(index)
        if item.place is not None:
            self._by_place[item.place].append(index)
        for root in item.roots:
            self._by_root[root].append(index)
        for target in self._pointed_at(item.op):
            self._by_target[target].append(index)

    def _later(self, place: Place, cause: int) -> Iterator[int]:
        indexes = self._by_place[place]
        while indexes and indexes[-1] > cause:
            yield indexes.pop()

    def _pointed_at(self, op: Op) -> Iterator[Target]:
        shape = self._shapes.get(op.table)
        if shape is None or not shape.references or op.kind == "void":
            return
        known = dict(zip(shape.key, op.key, strict=False)) | op.fields
        for reference in shape.references:
            values = [known.get(column) for column in reference.columns]
            if all(value is not None for value in values):
                yield reference.table, tuple(reference.target), canonical_key(values)

    def _made(self, op: Op) -> Iterator[Target]:
        shape = self._shapes.get(op.table)
        for table, columns in self._targets:
            if table == op.table:
                key = dict(zip(shape.key if shape else columns, op.key, strict=False))
                yield table, columns, canonical_key([op.fields.get(name, key.get(name)) for name in columns])
