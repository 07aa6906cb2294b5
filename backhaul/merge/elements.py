"""`set`: a JSON array in a text column, whose elements are added and taken out one by one.

Each element is a register of its own that holds the greatest (stamp, writer) of what put it in and what cut it out: an
LWW element set (Shapiro and others, 2011). The value is the array of those that are in, sorted by their canonical JSON.
An insert or a backfill puts all of its elements, and cuts none. So does an update that says the whole array, which is
from before the column was a set; where nobody has put or cut anything yet it is what it was then, a last write.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from backhaul.merge.plain import LastWrite, of_before
from backhaul.merge.register import Change, Register, canonical, written
from backhaul.wire import Kind

MOST = 10_000  # elements, those that were cut included: they are kept, or one that comes late would put them back
LONGEST = 4_096  # bytes of an element as canonical JSON

LAST_WRITE = LastWrite()

Marks = dict[str, Any]  # canonical JSON of an element -> [hlc, writer, whether it is in]


class Elements:
    def write(self, held: Register | None, change: Change, said: Any, version: int) -> Register:
        before = _marks(held)
        delta = type(said) is dict
        if held is not None and of_before(held, change, said):
            return LAST_WRITE.write(held, change, said, version)
        put = [canonical_of(one) for one in said.get("put", ())] if delta else members(said)
        cut = [canonical_of(one) for one in said.get("cut", ())] if delta else []
        marks = dict(before)
        for elements, present in ((put, True), (cut, False)):
            for element in elements:
                mark = [change.hlc, change.writer, present]
                if element not in marks or mark > list(marks[element]):
                    marks[element] = mark
        if held is None:
            value = None if said is None else shown(marks)
            return written(change, value, version, None if value == said else marks)
        value = None if held.value is None and said is None else shown(marks)
        hlc, writer = max(held.stamp[:2], (change.hlc, change.writer))
        if value == said and value == held.value:  # nothing to tell
            kept = held.kept if marks == before else marks
            return held if kept is held.kept else Register((hlc, writer, held.stamp[2]), value, kept)
        return Register((hlc, writer, version), value, marks)

    def unusable(self, kind: Kind, said: Any) -> str | None:
        try:
            return self._unusable(kind, said)
        except (msgspec.MsgspecError, OverflowError, RecursionError, ValueError):
            return "an element of a set is a JSON value with integers of 64 bits"

    def _unusable(self, kind: Kind, said: Any) -> str | None:
        if type(said) is dict:
            if kind != "update" or not said or not said.keys() <= {"put", "cut"}:
                return 'a set is changed by {"put": [...], "cut": [...]}'
            elements = [canonical_of(one) for one in (*said.get("put", ()), *said.get("cut", ()))]
            if len(set(elements)) < len(elements):
                return "one element is named twice"
        elif said is None:
            return None
        else:
            elements = list(members(said))
        if len(elements) > MOST or any(len(one) > LONGEST for one in elements):
            return f"a set has {MOST} elements of {LONGEST} bytes at most"
        return None


def members(said: Any) -> list[str]:
    """The elements of a set's value, as canonical JSON. Raises ValueError when it is no JSON array."""
    if said is None:
        return []
    if type(said) is not str:
        raise ValueError("a set is a JSON array, as text")
    try:
        array = msgspec.json.decode(said.encode(), type=list[Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(f"a set is a JSON array: {error}") from error
    return [canonical_of(one) for one in array]


def canonical_of(element: Any) -> str:
    """Raises ValueError for what no element can be."""
    try:
        return canonical(element).decode()
    except (msgspec.MsgspecError, OverflowError, RecursionError, TypeError) as error:
        raise ValueError(f"no element of a set: {error}") from error


def array_of(elements: Iterable[str]) -> str:
    return f"[{','.join(sorted(elements))}]"


def shown(marks: Marks) -> str:
    return array_of(element for element, mark in marks.items() if mark[2])


def _marks(held: Register | None) -> Marks:
    if held is None:
        return {}
    if type(held.kept) is dict:
        return held.kept
    hlc, writer, _ = held.stamp
    return {element: [hlc, writer, True] for element in members(held.value)}
