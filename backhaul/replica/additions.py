"""What is merged by what was done to it, where a person decides a conflict and takes the decision back: what was added,
put or typed by one side comes and goes, and what all others added stays.

With the decision is kept what stands on the server of such columns, and what is made of that by what was decided: one
is `before` and the other `after`, whichever way it went. Taking it back is the step from the one to the other, from
what stands by then. So it is where both sides have the record; where one has made it anew, its values are values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Sides:
    """Of such columns of the records of a conflict. theirs: as they stand on the server. both: with what our changes
    did to them."""

    known: Mapping[str, Table]
    entries: Sequence[Entry]
    theirs: dict[Place, Fields]
    both: dict[Place, Fields]

    @classmethod
    def of(cls, known: Mapping[str, Table], entries: Sequence[Entry], ours: Iterable[Conflicting]) -> Sides:
        """ours: the changes that are in the conflict."""
        of_place: dict[Place, list[Conflicting]] = {}
        for change in ours:
            of_place.setdefault((change.table, change.key), []).append(change)
        found = {one.place: _sides(known[one.table], one, of_place.get(one.place, ())) for one in entries}
        theirs, both = ({place: pair[side] for place, pair in found.items()} for side in (0, 1))
        return cls(known, entries, theirs, both)

    def beside(
        self,
        choice: str | Mapping[str, Value],
        here: Mapping[Place, Fields],
        before: Mapping[Place, Fields | None],
        after: Mapping[Place, Fields],
    ) -> tuple[dict[Place, Fields | None], dict[Place, Fields]]:
        """What stood before and after the choice, as it is kept for who takes it back. here: before the choice; before:
        what that did away with."""
        if choice == "theirs":
            return _beside(before, self.both), _beside(after, self.theirs)
        values = {} if isinstance(choice, str) else choice
        both = {one.place: self._decided(one, here.get(one.place, {}), values) for one in self.entries}
        return _beside(before, self.theirs), _beside(after, both)

    def _decided(self, entry: Entry, here: Fields, values: Mapping[str, Value]) -> Fields:
        """What both sides are when these values stand in place of those of the row here."""
        both, of_table = self.both[entry.place], columns(self.known[entry.table], entry)
        stepped = {
            name: _stepped(of_table[name], both[name], here.get(name), values[name]) for name in both if name in values
        }
        return both | stepped


def columns(table: Table, entry: Entry) -> dict[str, str]:
    """The columns that this is about, and their strategies."""
    if entry.kind != "update" or entry.there in ("deleted", "absent"):
        return {}
    return {name: how for name, how in table.deltas().items() if how in ADDED}


def _beside(records: Mapping[Place, Fields | None], more: Mapping[Place, Fields]) -> dict[Place, Any]:
    """Those that are there, with these of their fields."""
    return {place: fields if fields is None else fields | more.get(place, {}) for place, fields in records.items()}


def without(table: Table, entry: Entry, before: Fields, now: Fields) -> Fields:
    """What stood before the choice, in the fields that it was about; of what others add to, only its own part goes."""
    contested, after = entry.mine.keys() | entry.theirs.keys(), entry.after or {}
    told = {name: value for name, value in before.items() if name in contested}
    added = {name: how for name, how in columns(table, entry).items() if name in told and name in after}
    return told | {name: _stepped(how, now.get(name), after[name], told[name]) for name, how in added.items()}


def _sides(table: Table, entry: Entry, changes: Sequence[Conflicting]) -> tuple[Fields, Fields]:
    record, of_table = entry.theirs_as_record(), columns(table, entry)
    theirs = {name: _plain(record.fields[name]) for name in of_table if name in record.fields}
    held, both = overlay.Documents(record), dict(theirs)
    for change in changes if theirs else ():
        said = _any(change.fields.decode(errors="replace")) if change.fields else {}
        named = {name: value for name, value in said.items() if name in theirs}
        both |= overlay.plain(table, change.kind, named, both, held)
    return theirs, both


def _stepped(strategy: str, at: Value, was: Value, now: Value) -> Value:
    """The value `at` with what leads from `was` to `now`. Where that cannot be told, `now`."""
    at, was, now = _plain(at), _plain(was), _plain(now)
    if at == was or was == now:
        return now if at == was else at
    try:
        if strategy == "text":
            found: Any = documents.text_of(delta.edited(documents.seed(str(at or "")), was, now)[1])
        else:
            found = deltas.laid_over(strategy, at, {"was": was, "now": now})
        value: Value = msgspec.convert(found, type=Value)
        return value
    except (ValueError, KeyError, TypeError):
        return now


def _plain(value: Value) -> Value:
    """A text may come as the server has told it, with its document."""
    return value.text if type(value) is Tagged and value.text is not UNSET else value
