"""Which records of a page may be laid into the app's tables, and which are withheld: those of an aggregate that a
change of ours touches. Half of it would be theirs, half of it ours, and nothing of it right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from backhaul.merge.aggregate import Place
from backhaul.replica import conflicts, outbox
from backhaul.replica.roots import Roots, fields_of
from backhaul.replica.tables import Tracked
from backhaul.wire import Record, canonical_key


@dataclass(frozen=True, kw_only=True)
class Apart:
    """released: what was withheld until now, older than the page. records: those of the page that are not withheld."""

    released: list[Record]
    records: list[Record]


def apart(connection: Connection, tracked: Sequence[Tracked], records: Sequence[Record], *, now: int) -> Apart:
    """The conflicts that the records are in have heard of them, too."""
    conflicts.hear(connection, records)
    roots = Roots(connection, [one.table for one in tracked])
    if not roots.tables:
        return Apart(released=[], records=list(records))
    busy = _busy(connection, roots)
    released = conflicts.release(connection, busy)
    held: dict[Place, list[Record]] = {}
    free: list[Record] = []
    for record, root in zip(records, _touched(connection, roots, records, busy), strict=True):
        if root is None:
            free.append(record)
        else:
            held.setdefault(root, []).append(record)
    conflicts.withhold(connection, held, now=now)
    return Apart(released=released, records=free)


def _busy(connection: Connection, roots: Roots) -> set[Place]:
    """The aggregates that a change of ours touches which the server has not taken."""
    changes = [change for table in sorted(roots.tables) for change in outbox.unsettled_of(connection, table)]
    found = roots.of([(change.table, change.key, fields_of(change.fields)) for change in changes])
    return {root for root in found if root is not None}


def _touched(connection: Connection, roots: Roots, records: Sequence[Record], busy: set[Place]) -> list[Place | None]:
    """For each record the busy aggregate that it is of, there or here, or by what was withheld of it before."""
    if not busy:
        return [None] * len(records)
    places = [(record.table, canonical_key(record.key)) for record in records]
    before = conflicts.live(connection, [place for place in places if place[0] in roots.tables])
    there = roots.of([(*place, record.fields) for place, record in zip(places, records, strict=True)])
    here = roots.of([(*place, {}) for place in places])
    found: list[Place | None] = []
    for place, *known in zip(places, there, here, strict=True):
        known += [before[place].root] if place in before else []
        found.append(next((root for root in known if root in busy), None))
    return found
