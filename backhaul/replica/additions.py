"""What is merged by what was done to it, where a person decides a conflict and takes the decision back: what was added,
put or typed by one side comes and goes, and what all others added stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from backhaul.merge import delta, documents
from backhaul.merge.aggregate import Place
from backhaul.replica import deltas, overlay
from backhaul.replica.contested import Entry
from backhaul.replica.outbox import Conflicting
from backhaul.wire import Table, Tagged, Value

ADDED = ("counter", "set", "text")

Fields = dict[str, Value]

_any = msgspec.json.Decoder(dict[str, Any]).decode


def columns(table: Table) -> dict[str, str]:
    """The columns that this is about, and their strategies."""
    return {name: how for name, how in table.deltas().items() if how in ADDED}


def merged(ours: Iterable[Conflicting], known: Mapping[str, Table], entries: Iterable[Entry]) -> dict[Place, Fields]:
    """Of each record, what the other side's counters, sets and texts are with our changes. Nothing where one of the two
    sides has no such record."""
    of_place: dict[Place, list[Conflicting]] = {}
    for change in ours:
        of_place.setdefault((change.table, change.key), []).append(change)
    return {entry.place: _merged(known[entry.table], entry, of_place.get(entry.place, ())) for entry in entries}


def beside(records: Mapping[Place, Fields | None], merged: Mapping[Place, Fields]) -> dict[Place, Any]:
    """Those that are there, with these of their fields."""
    return {place: fields if fields is None else fields | merged.get(place, {}) for place, fields in records.items()}


def without(table: Table, entry: Entry, before: Fields, now: Fields) -> Fields:
    """What stood before the choice, in the fields that it was about; of what others add to, only its own part goes."""
    contested, after = entry.mine.keys() | entry.theirs.keys(), entry.after or {}
    told = {name: value for name, value in before.items() if name in contested}
    added = {name: how for name, how in columns(table).items() if name in told and name in after}
    return told | {name: _taken_back(how, now.get(name), told[name], after[name]) for name, how in added.items()}


def _merged(table: Table, entry: Entry, changes: Sequence[Conflicting]) -> Fields:
    record, of_table = entry.theirs_as_record(), columns(table)
    if record.deleted or not of_table or any(change.kind not in ("update", "void") for change in changes):
        return {}
    held = overlay.Documents(record)
    fields = {name: _plain(record.fields[name]) for name in of_table if name in record.fields}
    done: set[str] = set()
    for change in changes:
        said = {name: value for name, value in _any(change.fields or b"{}").items() if name in fields}
        fields |= overlay.plain(table, change.kind, said, fields, held)
        done |= said.keys()
    return {name: fields[name] for name in done}


def _taken_back(strategy: str, now: Value, before: Value, after: Value) -> Value:
    """The value without what led from `before` to `after`. Where that cannot be told, the one before."""
    now, before, after = _plain(now), _plain(before), _plain(after)
    try:
        if strategy == "text":
            state = documents.seed(str(now or ""))
            found: Any = documents.text_of(delta.edited(state, after, before)[1])
        else:
            found = deltas.laid_over(strategy, now, {"was": after, "now": before})
        value: Value = msgspec.convert(found, type=Value)
        return value
    except (ValueError, KeyError, TypeError):
        return before


def _plain(value: Value) -> Value:
    """A text may come as the server has told it, with its document."""
    return value.text if type(value) is Tagged and value.text is not UNSET else value
