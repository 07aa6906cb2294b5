"""Last write wins, per field: how a change and the state of a record become the next state. Pure; no clock, no SQL.

Each field is a register that holds the greatest of the writes it has seen, in the order (stamp, writer, canonical
bytes of the value): Shapiro, Preguica, Baquero, Zawirski, "A comprehensive study of convergent and commutative
replicated data types" (2011), LWW-register. So the fields of a record are the same in whatever order the changes
come, and a change that comes twice changes nothing.

A record is alive when its newest insert is newer than its newest delete. A tombstone keeps its stamp and nothing
else: an update or a backfill that meets one is without effect (`delete_wins`), an insert with a greater stamp revives
the record with the insert's own fields. Hence the one order that shows: an update of a former life that comes while
the record is dead is lost, and would not be if it came after the revival.

Versions say who must hear of it. A write that wins gives its field the new version; a write that loses does so too,
with the winner's value, so that the loser hears the winner through the feed. A write of the value that is there
already needs no telling and leaves the version alone.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from backhaul.wire import Kind

Stamp = tuple[int, str, int]  # hybrid logical clock, writer (a replica id), version

_canonical = msgspec.json.Encoder(order="sorted").encode


class State(Struct, frozen=True, kw_only=True):
    """A record. Values are wire values as JSON decodes them (a `{"hex": ...}` is a dict).

    version: feed position of the last change that someone must hear. born: position since which every field is there,
    0 while it is not. creator: the replica that made it. hlc, writer: of the fields that `stamps` does not name (their
    version is `born`), and of the newest insert; of a tombstone, of its delete.
    """

    version: int
    born: int
    creator: str
    deleted: bool
    hlc: int
    writer: str
    fields: dict[str, Any]
    stamps: dict[str, Stamp]

    def stamp(self, name: str) -> Stamp:
        return self.stamps.get(name) or (self.hlc, self.writer, self.born)


class Change(Struct, frozen=True, kw_only=True):
    """One op. hlc: its stamp as an integer, 0 for a backfill. writer: the replica that made it."""

    kind: Kind
    hlc: int
    writer: str
    fields: dict[str, Any]


def merge(state: State | None, change: Change, version: int) -> State:
    """The state after the change, which gets this version. The very same object when nothing changes."""
    if change.kind == "delete":
        return _dead(state, change, version)
    if state is None:
        return _new(change, version)
    if state.deleted:
        return _revived(state, change, version)
    if change.kind == "update":
        return _updated(state, change, version)
    return _upserted(state, change, version) if state.born else _completed(state, change, version)


def _new(change: Change, version: int) -> State:
    """A record that was not there. An update alone does not make it whole: the feed waits for the rest."""
    return State(
        version=version,
        born=0 if change.kind == "update" else version,
        creator=change.writer,
        deleted=False,
        hlc=change.hlc,
        writer=change.writer,
        fields=change.fields,
        stamps={},
    )


def _dead(state: State | None, change: Change, version: int) -> State:
    if state is None:
        return _tombstone(change, version, creator=change.writer)
    if state.deleted:
        older = (change.hlc, change.writer) <= (state.hlc, state.writer)
        return state if older else msgspec.structs.replace(state, hlc=change.hlc, writer=change.writer)
    if state.born and change.hlc < state.hlc:
        # Born again since: the deleter has no row left, so it must hear the whole record, as if it were new.
        return msgspec.structs.replace(state, version=version, born=version)
    return _tombstone(change, version, creator=state.creator)


def _tombstone(change: Change, version: int, *, creator: str) -> State:
    return State(
        version=version,
        born=0,
        creator=creator,
        deleted=True,
        hlc=change.hlc,
        writer=change.writer,
        fields={},
        stamps={},
    )


def _revived(state: State, change: Change, version: int) -> State:
    if change.kind == "insert" and change.hlc > state.hlc:
        return _new(change, version)
    return msgspec.structs.replace(state, version=version)  # the loser must hear of the delete


def _updated(state: State, change: Change, version: int) -> State:
    fields, stamps = dict(state.fields), dict(state.stamps)
    moved = told = False
    for name, value in change.fields.items():
        held = state.stamp(name) if name in fields else None
        stamp, fields[name] = _register(held, fields.get(name), change, value, version)
        if stamp != held:
            stamps[name] = stamp
            moved = True
            told = told or stamp[2] == version
    if not moved:
        return state
    return msgspec.structs.replace(state, version=version if told else state.version, fields=fields, stamps=stamps)


def _upserted(state: State, change: Change, version: int) -> State:
    """An insert or a backfill of a record that is there: a write of all its fields."""
    updated = _updated(state, change, version)
    if change.hlc <= state.hlc:
        return updated
    anchor = (change.hlc, change.writer, state.born)
    stamps = {name: updated.stamp(name) for name in updated.fields}
    return msgspec.structs.replace(
        updated,
        hlc=change.hlc,
        writer=change.writer,
        stamps={name: stamp for name, stamp in stamps.items() if stamp != anchor},
    )


def _completed(state: State, change: Change, version: int) -> State:
    """The insert or the backfill of a record that only updates had told of."""
    fields, stamps = dict(change.fields), dict[str, Stamp]()
    for name, mine in state.fields.items():
        stamp = state.stamp(name)
        if name in fields:
            stamp, mine = _register(stamp, mine, change, fields[name], version)
        fields[name] = mine
        if stamp[:2] != (change.hlc, change.writer):
            stamps[name] = (stamp[0], stamp[1], version)
    return State(
        version=version,
        born=version,
        creator=change.writer,
        deleted=False,
        hlc=change.hlc,
        writer=change.writer,
        fields=fields,
        stamps=stamps,
    )


def _register(held: Stamp | None, mine: Any, change: Change, theirs: Any, version: int) -> tuple[Stamp, Any]:
    """The stamp and the value of one field after a write."""
    if held is None:
        return (change.hlc, change.writer, version), theirs
    newer = (change.hlc, change.writer) > held[:2]
    if _same(mine, theirs):
        return ((change.hlc, change.writer, held[2]) if newer else held), mine
    tie = (change.hlc, change.writer) == held[:2]
    if newer or (tie and _canonical(theirs) > _canonical(mine)):
        return (change.hlc, change.writer, version), theirs
    return (held[0], held[1], version), mine


def _same(mine: Any, theirs: Any) -> bool:
    """1, 1.0 and true are three values here, and so are 0.0 and -0.0."""
    if type(mine) is not type(theirs):
        return False
    return repr(mine) == repr(theirs) if type(mine) is float else bool(mine == theirs)
