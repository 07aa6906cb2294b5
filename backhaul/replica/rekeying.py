"""What a new key for a record changes: the plan of it, from what our parked changes say, and its carrying out in the
app's rows. The journey is remap.py.

A record that refers to one that moves is rewritten; where the reference is part of its key, it moves, too, and so on.
The rows are taken out and put in again as they were but for that, so that the foreign keys of the database hold at
each step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Raw
from sqlalchemy import Connection

from backhaul.replica import checkpoint, foreign_keys, inspection, outbox, rows, tables
from backhaul.replica.capture import row_expressions
from backhaul.replica.rows import TablePlan
from backhaul.statements import on_postgresql, quoted, run
from backhaul.wire import Record, Reference, Table, Value, canonical_key, encode, to_plain

Place = tuple[str, str]  # table, canonical key
Fields = dict[str, Value]


@dataclass(kw_only=True)
class Move:
    """A record and its key now and then. root: its own number is new; of others, what they refer to."""

    table: Table
    old: list[Any]
    new: list[Any]
    root: bool
    row: Fields | None = None  # as it stands here, once it is taken out


@dataclass(kw_only=True)
class Moves:
    """changes: key, fields, id of the parked changes that are rewritten. fields: of rows here, by place: column -> its
    old and its new value."""

    moved: dict[Place, Move] = field(default_factory=dict)
    fields: dict[Place, dict[str, tuple[Any, Any]]] = field(default_factory=dict)
    changes: list[tuple[str, bytes | None, int]] = field(default_factory=list)
    tracked: dict[str, Table] = field(default_factory=dict)

    @property
    def roots(self) -> list[Move]:
        return [one for one in self.moved.values() if one.root]

    @property
    def ids(self) -> list[int]:
        return [number for _, _, number in self.changes]

    @property
    def places(self) -> list[Place]:
        """Where the other replica's records come in."""
        return list(self.moved)


@dataclass
class _Said:
    """A parked change."""

    id: int
    table: Table
    key: list[Any]
    kind: str
    fields: dict[str, Raw] | None

    @property
    def place(self) -> Place:
        return self.table.name, canonical_key(self.key)

    def value(self, column: str) -> Any:
        if column in self.table.key:
            return self.key[self.table.key.index(column)]
        said = (self.fields or {}).get(column)
        return None if said is None else msgspec.json.decode(said)


def plan(connection: Connection, fresh: Mapping[str, Mapping[str, int]]) -> Moves:
    """fresh: for each table, key (JSON) -> its new number."""
    known = {one.table.name: one.table for one in tables.all_tracked(connection)}
    moves = Moves(tracked=known)
    waiting: list[Move] = []
    for name, numbers in fresh.items():
        for key, number in numbers.items():
            move = Move(table=known[name], old=msgspec.json.decode(key), new=[number], root=True)
            moves.moved[name, canonical_key(move.old)] = move
            waiting.append(move)
    said = [
        _Said(row.id, known[row.table_name], msgspec.json.decode(row.key), row.kind, _members(row.fields))
        for row in outbox.parked_as_they_are(connection)
        if row.table_name in known
    ]
    references = _References(known, said)
    rewritten: set[int] = set()
    while waiting:
        for change, column, old, new in references.to(waiting.pop()):
            if column not in change.table.key:
                assert change.fields is not None
                change.fields[column] = Raw(encode(new))
                moves.fields.setdefault(change.place, {})[column] = (old, new)
                rewritten.add(change.id)
                continue
            along = Move(table=change.table, old=change.key, new=list(change.key), root=False)
            along = moves.moved.setdefault(change.place, along)
            at = change.table.key.index(column)
            if along.new[at] != new:
                along.new[at] = new
                waiting.append(along)
    for one in said:
        mover = moves.moved.get(one.place)
        if mover is not None or one.id in rewritten:
            key = encode(mover.new if mover is not None else one.key).decode()
            moves.changes.append((key, None if one.fields is None else _joined(one.fields), one.id))
    return moves


def take_out(connection: Connection, moves: Moves) -> None:
    """Remember the rows as they are, and make room for the records of others under their keys."""
    checkpoint.mute(connection)
    plans: dict[str, TablePlan] = {}
    for move in moves.moved.values():
        move.row = row_as_it_is(connection, move.table, move.old)
        if move.root and on_postgresql(connection):
            continue  # rows of others refer to its key: the other's record takes its place in one step
        taken = plans.setdefault(move.table.name, TablePlan(table=move.table))
        taken.deleted.append(tuple(to_plain(part) for part in move.old))
    foreign_keys.refuse_to_take_along(connection, list(plans.values()), list(moves.tracked.values()))
    rows.write(connection, list(plans.values()))
    checkpoint.unmute(connection)


def settle_in(connection: Connection, moves: Moves, there: Sequence[Record]) -> None:
    """Put the rows in under their new keys, and have all that refers to them say so. there: what the server has under
    the old keys; it stands in their place by now."""
    checkpoint.mute(connection)
    plans: dict[str, TablePlan] = {}
    for place, move in moves.moved.items():
        if move.row is not None:
            _put(plans, move, _with(move.row, moves.fields.get(place, {})))
    for (name, key), fields in moves.fields.items():
        if (name, key) not in moves.moved:
            _say(connection, plans, moves.tracked[name], msgspec.json.decode(key), fields)
    rows.write(connection, list(plans.values()))
    _tell_untracked(connection, moves)
    if on_postgresql(connection):
        _leave(connection, moves, {(record.table, canonical_key(record.key)) for record in there})
    checkpoint.unmute(connection)


class _References:
    """Which parked changes refer to a record."""

    def __init__(self, known: Mapping[str, Table], said: Sequence[_Said]) -> None:
        self._to: dict[str, list[tuple[Reference, dict[str, list[_Said]]]]] = {}
        self._made = {one.place: one for one in said if one.kind in ("insert", "backfill")}
        by_table: dict[str, list[_Said]] = {}
        for one in said:
            by_table.setdefault(one.table.name, []).append(one)
        for child in known.values():
            for reference in child.references:
                index: dict[str, list[_Said]] = {}
                for one in by_table.get(child.name, []):
                    values = [one.value(column) for column in reference.columns]
                    if None not in values:
                        index.setdefault(canonical_key(values), []).append(one)
                self._to.setdefault(reference.table, []).append((reference, index))

    def to(self, move: Move) -> Iterator[tuple[_Said, str, Any, Any]]:
        """Each change that refers to the record under its old key: the column, and its old and its new value."""
        table = move.table
        made = self._made.get((table.name, canonical_key(move.old)))
        old, new = dict(zip(table.key, move.old, strict=True)), dict(zip(table.key, move.new, strict=True))
        for reference, index in self._to.get(table.name, []):
            values = [old[one] if one in old else (made.value(one) if made else None) for one in reference.target]
            for change in index.get(canonical_key(values), []):
                for column, target in zip(reference.columns, reference.target, strict=True):
                    if target in old and old[target] != new[target]:
                        yield change, column, old[target], new[target]


def _members(fields: bytes | None) -> dict[str, Raw] | None:
    """Each value as its own bytes: an app can store text that is no UTF-8, and it is to stay what it is."""
    return None if fields is None else msgspec.json.decode(bytes(fields), type=dict[str, Raw])


def _joined(fields: Mapping[str, Raw]) -> bytes:
    return b"{" + b",".join(encode(name) + b":" + bytes(value) for name, value in fields.items()) + b"}"


def row_as_it_is(connection: Connection, table: Table, key: Sequence[Any]) -> Fields | None:
    """The fields of a row, as they would travel; None when it is not there."""
    _, fields = row_expressions(connection, table, "it")
    statement = f"SELECT {fields} FROM {quoted(table.name)} AS it WHERE {rows.is_the_key(connection, table)}"  # noqa: S608 - the catalogue's own names, quoted
    found = run(connection, statement, rows.key_values(connection, table, key)).scalar()
    return None if found is None else msgspec.json.decode(found, type=Fields)


def _with(row: Fields, fields: Mapping[str, tuple[Any, Any]]) -> Fields:
    """A column that says something else by now stays."""
    return row | {name: new for name, (old, new) in fields.items() if row.get(name) == old}


def _put(plans: dict[str, TablePlan], move: Move, row: Fields) -> None:
    plan = plans.setdefault(move.table.name, TablePlan(table=move.table))
    names = tuple(name for name in plan.others if name in row)
    values = (*(to_plain(part) for part in move.new), *(to_plain(row[name]) for name in names))
    plan.whole.setdefault(names, []).append(values)


def _say(
    connection: Connection,
    plans: dict[str, TablePlan],
    table: Table,
    key: list[Any],
    fields: Mapping[str, tuple[Any, Any]],
) -> None:
    row = row_as_it_is(connection, table, key)
    if row is None:
        return
    plan = plans.setdefault(table.name, TablePlan(table=table))
    said = _with(row, fields)
    pairs = [part for name in plan.others for part in (said[name] != row[name], to_plain(said[name]))]
    plan.changed.append((*pairs, *(to_plain(part) for part in key)))


def _tell_untracked(connection: Connection, moves: Moves) -> None:
    """Tables that are not synced hold rows of this database alone: what they refer to is our row."""
    for name, references in inspection.references_of_others(connection, list(moves.tracked)).items():
        for reference in references:
            for move in moves.moved.values():
                if move.table.name == reference.table and set(reference.target) == set(move.table.key):
                    _tell(connection, name, reference, move)


def _tell(connection: Connection, name: str, reference: Reference, move: Move) -> None:
    order = [move.table.key.index(target) for target in reference.target]
    assign = ", ".join(f"{quoted(column)} = ?" for column in reference.columns)
    where = " AND ".join(f"{quoted(column)} = ?" for column in reference.columns)
    values = (*(to_plain(move.new[at]) for at in order), *(to_plain(move.old[at]) for at in order))
    run(connection, f"UPDATE {quoted(name)} SET {assign} WHERE {where}", values)  # noqa: S608 - the same


def _leave(connection: Connection, moves: Moves, there: set[Place]) -> None:
    """Of records that the server does not have, the old rows go."""
    plans: dict[str, TablePlan] = {}
    for place, move in moves.moved.items():
        if move.root and place not in there:
            plan = plans.setdefault(move.table.name, TablePlan(table=move.table))
            plan.deleted.append(tuple(to_plain(part) for part in move.old))
    foreign_keys.refuse_to_take_along(connection, list(plans.values()), list(moves.tracked.values()))
    rows.write(connection, list(plans.values()))
