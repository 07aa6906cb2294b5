"""What differs from a server that was put back, in groups: what is of one aggregate is offered as one, so that nobody
who pulls between two pushes sees half of it. (What waits of it already is joined to that: joining.py.)

Only what differs is held, of some of the aggregates at a time: where it is too much for one look, the tables are gone
through once for each part of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar
from zlib import crc32

from sqlalchemy import Connection

from backhaul.merge.aggregate import Place
from backhaul.replica import checkpoint, differences, tables
from backhaul.replica.context import Context
from backhaul.replica.differences import Difference
from backhaul.replica.knots import Knots, Node
from backhaul.replica.renumbering import Offer
from backhaul.replica.roots import Roots
from backhaul.replica.tables import Tracked
from backhaul.wire import Record, Table

AT_ONCE = 500  # what is settled in one transaction, unless one group alone is larger
MOST_HELD = 50_000  # differences of aggregates that are held at once
FINER = 8  # times as many parts, where one was too large

Each = TypeVar("Each")


class Group(NamedTuple):
    """roots: of the aggregates that it is of."""

    roots: frozenset[Place]
    said: list[Offer | Record]


def groups(
    connection: Connection, tracked: Sequence[Tracked], known: checkpoint.Checkpoint, context: Context
) -> Iterator[list[Group]]:
    """As many at a time as are settled in one transaction."""
    behind = tables.not_fetched(connection)
    roots = Roots(connection, [one.table for one in tracked])
    fetched = [one.table for one in tracked if behind.get(one.table.name) != ()]  # else nothing of it has come yet

    def some_of(table: Table, *, whole: bool) -> Iterator[list[Difference]]:
        unknown = behind.get(table.name, ())
        for some in _chunks(differences.of_table(connection, table, known, unknown=unknown, whole=whole)):
            context.check()
            yield some

    def of_aggregates() -> Iterator[list[Difference]]:
        for table in fetched:
            if table.name in roots.tables:
                yield from some_of(table, whole=True)

    for table in fetched:
        if table.name not in roots.tables:
            for some in some_of(table, whole=False):
                yield [Group(frozenset(), [each.said]) for each in some]
    part, parts = 0, 1
    while part < parts:
        found = _one_part(roots, of_aggregates(), part, parts)
        if found is None:
            parts *= FINER
            continue
        yield from _together(found)
        part += 1


def _one_part(roots: Roots, found: Iterator[list[Difference]], part: int, parts: int) -> list[Group] | None:
    """What differs of a part of the aggregates, those together that are tied by a record that was moved; None when it
    is too much. (Of that the first part tells, for all.)"""
    knots, held = Knots(), list[tuple[list[Place], Offer | Record]]()
    for some in found:
        for each, of_each in zip(some, _roots_of(roots, some), strict=True):
            if crc32(repr(of_each[0]).encode()) % parts == part:
                knots.tie(*(("root", root) for root in of_each))
                held.append((of_each, each.said))
        if part == 0 and len(held) > MOST_HELD:
            return None
    by_knot: dict[Node, tuple[set[Place], list[Offer | Record]]] = {}
    for of_each, said in held:
        places, together = by_knot.setdefault(knots.of(("root", of_each[0])), (set(), []))
        places.update(of_each)
        together.append(said)
    return [Group(frozenset(places), together) for places, together in by_knot.values()]


def _roots_of(roots: Roots, some: Sequence[Difference]) -> list[list[Place]]:
    """The aggregates of each record, here and there; one that is of none is for itself."""
    here = roots.of([(each.table, each.key, each.here) for each in some])
    there = roots.of([(each.table, each.key, each.there) for each in some])
    return [
        list(dict.fromkeys(root for root in pair if root is not None)) or [(each.table, each.key)]
        for each, *pair in zip(some, here, there, strict=True)
    ]


def _together(found: Sequence[Group]) -> Iterator[list[Group]]:
    some, count = list[Group](), 0
    for group in found:
        if some and count + len(group.said) > AT_ONCE:
            yield some
            some, count = [], 0
        some.append(group)
        count += len(group.said)
    if some:
        yield some


def _chunks(each: Iterator[Each]) -> Iterator[list[Each]]:
    while some := list(islice(each, AT_ONCE)):
        yield some
