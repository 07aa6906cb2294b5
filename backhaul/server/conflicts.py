"""Which ops of a push are conflicts, for a person to decide, and what is held with them. Pure; no SQL.

An op conflicts when it meets what another replica wrote and its app had not seen (a version above its `base`):

- it writes another value into a `manual` field,
- it deletes a record of which a `manual` field was written, or writes a `manual` field of a record that was deleted,
- it changes anything of an aggregate of which anything was changed: the edit of one side stands whole, or is held,
- it writes a `custom` field, and the function that is to decide fails (`merge-failed`).

Everything is held against the records as they were before the push, since all of its ops are one replica's. A backfill
never conflicts: it is older than everything. What is held with a conflict: its group, later ops of the record, all ops
of its aggregates, and ops with a foreign key to a record that it would have made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import structs

from backhaul.merge import Change, State, contested
from backhaul.merge.aggregate import Aggregates, Place
from backhaul.server.admission import Item, spread
from backhaul.server.aggregates import Mark
from backhaul.server.problems import is_conflict, problem
from backhaul.server.tables import Shape
from backhaul.wire import Op, Problem, encode, strategy_name

MOST_THEIRS = 4 * 2**20  # bytes of records in the answer to one push; a client asks for the rest by /v1/records


def find_roots(items: Sequence[Item], states: Mapping[Place, State], aggregates: Aggregates) -> None:
    """Give each item the roots of the aggregates that it changes: of the record as it was, and as it will be."""
    if not aggregates.tables:
        return
    moved: dict[Place, Place] = {}  # where the ops of this push have put a record
    for item in items:
        if item.place is None or item.op.table not in aggregates.tables:
            continue
        state = states.get(item.place)
        fields = state.fields if state is not None else {}
        before = moved.get(item.place) or aggregates.root(item.op.table, item.op.key, fields)
        after = aggregates.root(item.op.table, item.op.key, {**fields, **item.op.fields}) or before
        if after is not None:
            moved[item.place] = after
        item.roots = tuple(dict.fromkeys(root for root in (before, after) if root is not None))


def hold(
    items: Sequence[Item],
    states: Mapping[Place, State],
    shapes: Mapping[str, Shape],
    aggregates: Aggregates,
    marks: Mapping[Place, Mark],
) -> None:
    """Give a problem to each op that conflicts, and then to all that is held with it."""
    columns = {name: shape.strategies.columns for name, shape in shapes.items()}
    for item in items:
        if not item.roots and item.place not in states and not columns.get(item.op.table):
            continue  # nobody has written there
        if item.problem is None and item.change is not None and item.change.kind != "backfill":
            said = _met(item, item.change, states, shapes, aggregates, marks)
            failed = "" if said else _failed(item, states, shapes)
            if said or failed:
                item.problem = problem("conflict" if said else "merge-failed", said or failed, op=item.op.op)
    reached = [index for index, item in enumerate(items) if item.problem is not None and is_conflict(item.problem)]
    if reached:
        spread(items, reached, shapes, _held_with)


def _held_with(op: Op, cause: Op) -> Problem:
    told = problem("depends-on-conflict", f"is held with the op {cause.op}, which is a conflict", op=op.op)
    told.cause = cause.op
    return told


def _met(
    item: Item,
    change: Change,
    states: Mapping[Place, State],
    shapes: Mapping[str, Shape],
    aggregates: Aggregates,
    marks: Mapping[Place, Mark],
) -> str:
    """What of another replica's the op meets, in words; empty when nothing."""
    for root in item.roots:
        mark = marks.get(root)
        version = mark.by_another(change) if mark is not None else 0
        if version > item.op.base:
            return f"another replica has changed {root[0]} {root[1]}, or a part of it, as version {version}"
    state = states.get(item.place) if item.place is not None else None
    if state is None or state.version <= item.op.base:
        return ""
    manual = {name for name, said in shapes[item.op.table].merge.items() if strategy_name(said) == "manual"}
    if state.deleted:
        asked = manual & item.op.fields.keys() or item.op.table in aggregates.tables
        if item.op.kind == "update" and asked and not change.is_by(state.writer, state.version):
            return f"another replica has deleted the record, as version {state.version}"
        return ""
    for name in sorted(manual & state.fields.keys()):
        _, writer, version = state.stamp(name)
        if version <= item.op.base or change.is_by(writer, version):
            continue
        if item.op.kind == "delete" or (name in item.op.fields and not _same(item, name, state.fields[name])):
            return f"another replica has changed {name}, as version {version}"
    return ""


def _failed(item: Item, states: Mapping[Place, State], shapes: Mapping[str, Shape]) -> str:
    """Why a function of the host's cannot decide about a field of the op; empty when none is asked, or it can."""
    strategies = shapes[item.op.table].strategies
    if item.change is None or item.place is None or not strategies.columns:
        return ""
    told = contested(states.get(item.place), item.change, strategies)
    return told.detail if told is not None and told.problem == "merge-failed" else ""


def _same(item: Item, name: str, there: Any) -> bool:
    assert item.change is not None
    said = item.change.fields[name]
    now = said["now"] if isinstance(said, dict) and "now" in said else said
    return encode(now) == encode(there)


def tell_theirs(items: Sequence[Item], states: Mapping[Place, State], marks: Mapping[Place, Mark]) -> None:
    """Say with each conflict what stands there: the fields that the op names, or all that a delete would take away.

    states: the records after this push: what it brought before the conflict is told to its replica by nobody else.
    """
    room = MOST_THEIRS
    for item in items:
        told = item.problem
        if told is None or item.change is None or not is_conflict(told):
            continue
        state = states.get(item.place) if item.place is not None else None
        told.since = max((marks[root].by_another(item.change) for root in item.roots if root in marks), default=0)
        if state is None:
            continue
        told.version, told.deleted = state.version, state.deleted
        if not state.deleted:
            names = state.fields if item.op.kind == "delete" else item.change.fields
            theirs = {name: told_of(state, name) for name in names}
            room -= len(encode(theirs))
            told.theirs = theirs if room >= 0 else None


def told_of(state: State, name: str) -> Any:
    """A field as the feed tells of it: a text that was edited, with its document."""
    value, kept = state.fields.get(name), state.states.get(name)
    return {"text": value, "state": kept["yjs"]} if type(kept) is dict and "yjs" in kept else value


def changed_roots(items: Sequence[Item], versions: Sequence[int], merged: Mapping[Place, State]) -> dict[Place, int]:
    """The aggregates of which something is not as it was: root -> version. That may be a stamp alone, of who says again
    what stands there: no replica has to hear of that, so the record keeps its version, but an edit by who had not seen
    it could lose to the stamp."""
    changed: dict[Place, int] = {}
    for item, version in zip(items, versions, strict=True):
        if item.roots and version and item.place is not None and item.place in merged:
            changed |= {root: max(version, changed.get(root, 0)) for root in item.roots}
    return changed


def remembering_root(before: State | None, after: State, table: str, aggregates: Aggregates) -> State:
    """The state; a tombstone keeps the columns that name its root, for an edit that may come late."""
    if not after.deleted or after.fields or before is None:
        return after
    columns = aggregates.columns(table)
    if not columns:
        return after
    return structs.replace(after, fields={name: before.fields[name] for name in columns if name in before.fields})
