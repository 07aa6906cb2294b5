"""Which records of a page may be laid into the app's tables, and which are withheld: those of an aggregate that a
change of ours touches. Half of it would be theirs, half of it ours, and nothing of it right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import Connection

from backhaul.merge.aggregate import Place
from backhaul.replica import checkpoint, conflicts, outbox
from backhaul.replica.contested import Entry
from backhaul.replica.knots import Knots, Node
from backhaul.replica.roots import Roots, fields_of
from backhaul.replica.tables import Tracked
from backhaul.wire import Record, canonical_key

BUSY: Node = ("busy", None)


@dataclass(frozen=True, kw_only=True)
class Apart:
    """released: what was withheld until now, older than the page. records: those of the page that are not withheld."""

    released: list[Record]
    records: list[Record]


class Ours:
    """What our changes touch that the server has not taken: read once in a transaction, when it is wanted."""

    def __init__(self, connection: Connection, tracked: Sequence[Tracked]) -> None:
        self.roots = Roots(connection, [one.table for one in tracked])
        self._connection = connection

    @cached_property
    def places(self) -> dict[Place, set[Place]]:
        """The records that we have changed, with the aggregates that this touches."""
        found: dict[Place, set[Place]] = {}
        for table in sorted(self.roots.tables):
            changes = outbox.unsettled_of(self._connection, table)
            said = [(change.table, change.key, fields_of(change.fields)) for change in changes]
            for change, root in zip(changes, self.roots.of(said), strict=True):
                if root is not None:
                    found.setdefault((change.table, change.key), set()).add(root)
        return found


def apart(connection: Connection, mine: Ours, records: Sequence[Record], *, now: int) -> Apart:
    """The conflicts that the records are in have heard of them, too."""
    conflicts.hear(connection, records)
    roots = mine.roots
    known = conflicts.rooted(connection) if roots.tables else []
    if not known and all(record.table not in roots.tables for record in records):
        return Apart(released=[], records=list(records))
    ours = mine.places
    of_each = _roots_of(roots, records, known, ours) if ours else [()] * len(records)
    knots = Knots()
    for changed in ours.values():
        knots.tie(BUSY, *(("root", root) for root in changed))
    for entry in known:
        numbered: list[Node] = [("number", entry.number)] if entry.number is not None else []
        knots.tie(*(("root", root) for root in entry.roots), *numbered)
    for some in of_each:
        if some:
            knots.tie(*(("root", root) for root in some))
    _join(connection, knots, known)
    free, held = list[Record](), list[tuple[Record, tuple[Place, ...], int | None]]()
    for record, some in zip(records, of_each, strict=True):
        if some and knots.together(BUSY, ("root", some[0])):
            held.append((record, some, _number(knots, known, some[0])))
        else:
            free.append(record)
    withheld = [entry for entry in known if entry.state == "withheld"]
    over = [entry for entry in withheld if not knots.together(BUSY, ("root", entry.roots[0]))]
    released = conflicts.release(connection, over)
    conflicts.withhold(connection, held, position=checkpoint.read(connection).position, now=now)
    return Apart(released=released, records=free)


def _roots_of(
    roots: Roots, records: Sequence[Record], known: Sequence[Entry], ours: Mapping[Place, set[Place]]
) -> list[tuple[Place, ...]]:
    """For each record the aggregates that it is of: there, here, by what we did to it and by what was withheld of it
    before. A part that moved ties two of them together."""
    places = [(record.table, canonical_key(record.key)) for record in records]
    before = {entry.place: entry.roots for entry in known}
    there = roots.of([(*place, record.fields) for place, record in zip(places, records, strict=True)])
    here = roots.of([(*place, {}) for place in places])
    return [
        tuple(
            dict.fromkeys(
                (*before.get(place, ()), *sorted(ours.get(place, ())), *(root for root in pair if root is not None))
            )
        )
        for place, *pair in zip(places, there, here, strict=True)
    ]


def _join(connection: Connection, knots: Knots, known: Sequence[Entry]) -> None:
    """Conflicts that what has come ties together are one."""
    numbers = sorted({entry.number for entry in known if entry.number is not None})
    for place, number in enumerate(numbers):
        others = [one for one in numbers[place + 1 :] if knots.together(("number", number), ("number", one))]
        if others:
            conflicts.join(connection, number, others)
            outbox.join_conflicts(connection, number, others)


def _number(knots: Knots, known: Sequence[Entry], root: Place) -> int | None:
    """The conflict that the aggregate is in, through whatever ties it to it."""
    numbers = {entry.number for entry in known if entry.number is not None}
    return next((one for one in sorted(numbers) if knots.together(("root", root), ("number", one))), None)
