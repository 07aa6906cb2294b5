"""Records: how a change and the state of a record become the next state. Pure; no clock, no SQL.

Each field is a register of its column's strategy (see register.py); so the fields of a record are the same in whatever
order the changes come, and a change that comes twice changes nothing. Most columns are `lww`, and most tables have no
others: that path is written out here, for speed.

A record is alive when its newest insert is newer than its newest delete. Where deletes win, a tombstone keeps its stamp
and nothing else: an update or a backfill that meets one is without effect, an insert with a greater stamp revives the
record with the insert's own fields. Hence the one order that shows: an update of a former life that comes while the
record is dead is lost, and would not be if it came after the revival.

Where edits win (`edit_wins`), a tombstone keeps its fields, too. A record is dead when one of its deletes had seen all
of its edits: so an edit of another writer that comes after the delete revives it, and a delete has no effect on what
it had not seen. `edits` is as much as that takes: the last edit, and the last one of any other writer.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from backhaul.merge.register import Change, Register, Stamp, canonical, same
from backhaul.merge.strategies import LAST_WRITE_WINS, Strategies

EDITS = ""  # in `states`: no column is called that


class State(Struct, frozen=True, kw_only=True, gc=False):
    """A record. Values are wire values as JSON decodes them (a `{"hex": ...}` is a dict).

    version: feed position of the last change that someone must hear. born: position since which every field is there,
    0 while it is not. creator: the replica that made it. hlc, writer: of the fields that `stamps` does not name (their
    version is `born`), and of the newest insert; of a tombstone, of its delete. states: what the strategies of fields
    keep beside the value; under EDITS, [[version, writer], [version, writer]].
    """

    version: int
    born: int
    creator: str
    deleted: bool
    hlc: int
    writer: str
    fields: dict[str, Any]
    stamps: dict[str, Stamp]
    states: dict[str, Any] = {}

    def stamp(self, name: str) -> Stamp:
        return self.stamps.get(name) or (self.hlc, self.writer, self.born)

    def register(self, name: str) -> Register:
        """A field that the record has."""
        return Register(self.stamp(name), self.fields[name], self.states.get(name))


def merge(state: State | None, change: Change, version: int, strategies: Strategies = LAST_WRITE_WINS) -> State:
    """The state after the change, which gets this version. The very same object when nothing changes."""
    if not strategies.edit_wins:
        return _merged(state, change, version, strategies)
    if state is not None and change.kind == "delete" and state.born and not state.deleted:
        return _buried(state, change, version)
    if state is not None and state.deleted and state.stamps and _had_not_seen(state, change):
        return _edited(_merged(_unburied(state, version), change, version, strategies), change, version)
    merged = _merged(state, change, version, strategies)
    if merged is state or change.kind in ("delete", "backfill") or merged.deleted:
        return merged
    return _edited(merged, change, version)


def _merged(state: State | None, change: Change, version: int, strategies: Strategies) -> State:
    if change.kind == "delete":
        return _dead(state, change, version)
    if state is None:
        return _new(change, version, strategies)
    if state.deleted:
        return _revived(state, change, version, strategies)
    if change.kind == "update":
        return _updated(state, change, version, strategies)
    if state.born:
        return _upserted(state, change, version, strategies)
    return _completed(state, change, version, strategies)


def _new(change: Change, version: int, strategies: Strategies) -> State:
    """A record that was not there. An update alone does not make it whole: the feed waits for the rest."""
    fields, states = change.fields, dict[str, Any]()
    written = strategies.columns.keys() & fields.keys()
    if written:
        fields = dict(fields)
        for name in written:
            register = strategies.columns[name].write(None, change, fields[name], version)
            fields[name] = register.value
            _keep(states, name, register)
    return State(
        version=version,
        born=0 if change.kind == "update" else version,
        creator=change.writer,
        deleted=False,
        hlc=change.hlc,
        writer=change.writer,
        fields=fields,
        stamps={},
        states=states,
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


def _revived(state: State, change: Change, version: int, strategies: Strategies) -> State:
    if change.kind == "insert" and change.hlc > state.hlc:
        return _new(change, version, strategies)
    return msgspec.structs.replace(state, version=version)  # the loser must hear of the delete


def _updated(state: State, change: Change, version: int, strategies: Strategies) -> State:
    fields, stamps, states = dict(state.fields), dict(state.stamps), state.states
    moved = told = False
    columns = strategies.columns
    for name, value in change.fields.items():
        if name in columns:
            held = state.register(name) if name in fields else None
            register = columns[name].write(held, change, value, version)
            if register == held and (held is None or same(register.value, held.value)):
                continue
            states = dict(states) if states is state.states else states
            stamps[name], fields[name] = register.stamp, register.value
            _keep(states, name, register)
            moved, told = True, told or register.stamp[2] == version
            continue
        known = state.stamp(name) if name in fields else None
        stamp, fields[name] = _register(known, fields.get(name), change, value, version)
        if stamp != known:
            stamps[name] = stamp
            moved = True
            told = told or stamp[2] == version
    if not moved:
        return state
    version = version if told else state.version
    return msgspec.structs.replace(state, version=version, fields=fields, stamps=stamps, states=states)


def _keep(states: dict[str, Any], name: str, register: Register) -> None:
    if register.kept is None:
        states.pop(name, None)
    else:
        states[name] = register.kept


def _upserted(state: State, change: Change, version: int, strategies: Strategies) -> State:
    """An insert or a backfill of a record that is there: a write of all its fields."""
    updated = _updated(state, change, version, strategies)
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


def _completed(state: State, change: Change, version: int, strategies: Strategies) -> State:
    """The insert or the backfill of a record that only updates had told of."""
    fresh = _new(change, version, strategies)
    fields, stamps, states = dict(fresh.fields), dict[str, Stamp](), dict(fresh.states)
    for name, mine in state.fields.items():
        stamp = state.stamp(name)
        if name in strategies.columns:
            register = state.register(name)
            if name in fields:
                register = strategies.columns[name].write(register, change, change.fields[name], version)
            stamp, mine = register.stamp, register.value
            _keep(states, name, register)
        elif name in fields:
            stamp, mine = _register(stamp, mine, change, fields[name], version)
        fields[name] = mine
        if stamp[:2] != (change.hlc, change.writer):
            stamps[name] = (stamp[0], stamp[1], version)
    if EDITS in state.states:
        states[EDITS] = state.states[EDITS]
    return msgspec.structs.replace(fresh, fields=fields, stamps=stamps, states=states)


def _register(held: Stamp | None, mine: Any, change: Change, theirs: Any, version: int) -> tuple[Stamp, Any]:
    """The stamp and the value of one `lww` field after a write: plain.LastWrite, written out."""
    if held is None:
        return (change.hlc, change.writer, version), theirs
    newer = (change.hlc, change.writer) > held[:2]
    if same(mine, theirs):
        return ((change.hlc, change.writer, held[2]) if newer else held), mine
    tie = (change.hlc, change.writer) == held[:2]
    if newer or (tie and canonical(theirs) > canonical(mine)):
        return (change.hlc, change.writer, version), theirs
    return (held[0], held[1], version), mine


# ------------------------------------------------------------------------------------------------ edits win


def _buried(state: State, change: Change, version: int) -> State:
    """A delete of a record that is alive and whole. The tombstone has a stamp for each field; no other one has any."""
    if _unseen_by(state, change) or change.hlc < state.hlc:
        return msgspec.structs.replace(state, version=version, born=version)
    return msgspec.structs.replace(
        state,
        version=version,
        deleted=True,
        hlc=change.hlc,
        writer=change.writer,
        stamps={name: state.stamp(name) for name in state.fields},
    )


def _unseen_by(state: State, delete: Change) -> bool:
    """Whether another writer than the deleter has made or edited the record, and the deleter had not seen it."""
    edits = state.states.get(EDITS) or [(state.stamp(name)[2], state.stamp(name)[1]) for name in state.fields]
    return any(version > delete.base and not delete.is_by(writer, version) for version, writer in edits)


def _had_not_seen(tombstone: State, change: Change) -> bool:
    """Whether the change is an edit of another writer than the deleter, which did not know of the delete."""
    edit = change.kind in ("update", "insert")
    return edit and change.base < tombstone.version and not change.is_by(tombstone.writer, tombstone.version)


def _unburied(tombstone: State, version: int) -> State:
    return msgspec.structs.replace(tombstone, deleted=False, version=version, born=version)


def _edited(state: State, change: Change, version: int) -> State:
    known = state.states.get(EDITS, [])
    others = [edit for edit in known if not change.is_by(edit[1], edit[0])]
    return msgspec.structs.replace(state, states=state.states | {EDITS: [[version, change.writer], *others[:1]]})
