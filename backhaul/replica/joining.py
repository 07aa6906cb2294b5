"""What waits of an aggregate when the server was put back, and what of it is offered, go as one: the one alone would be
judged, and seen by others, without the other.

Our own changes of it go to the end of the queue, into the group of what is offered, and with them whatever waits after
them and depends on them. They stay the ops that they are: ids, stamps and bytes do not change. What is refused stays
where it is, parked or in a conflict, and what is offered gets its group: so it waits with it.

Left as they are: changes that the server may have under the numbers that they have, and what is too much for one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from secrets import token_hex
from typing import NamedTuple

from sqlalchemy import Connection

from backhaul.replica import lanes, outbox, renumbering
from backhaul.replica.apart import Ours
from backhaul.replica.footprint import Tables
from backhaul.replica.grouping import Group
from backhaul.replica.knots import Knots, Node
from backhaul.replica.renumbering import MOST_GROUP, Offer
from backhaul.replica.tables import Tracked
from backhaul.wire import MOST_OPS


class Offered(NamedTuple):
    """What is offered as one. group: of changes of ours that it goes with."""

    offers: list[Offer]
    group: str | None = None


class Joined(NamedTuple):
    """ours: the group of each change of ours that goes with what is offered, by outbox id."""

    offered: list[Offered]
    ours: dict[int, str]


class _Waiting(NamedTuple):
    id: int
    group: str | None
    size: int
    on_its_way: bool
    refused: bool
    may_move: bool


def join(connection: Connection, tracked: Sequence[Tracked], groups: Sequence[Group], *, now: int) -> Joined:
    """Raises Busy while something that is to go with it is on its way."""
    knots, offers = Knots(), dict[Node, list[Offer]]()
    alone: list[Offered] = []
    for group in groups:
        said = [one for one in group.said if isinstance(one, Offer)]
        nodes: list[Node] = [("root", root) for root in group.roots]
        if nodes and said:
            knots.tie(*nodes)
            offers[nodes[0]] = said
        elif said:
            alone.append(Offered(said))
    mine = Ours(connection, tracked)
    roots = mine.waiting({root for group in groups for root in group.roots}) if offers and mine.any() else {}
    if not roots:
        return Joined([*alone, *map(Offered, offers.values())], {})
    for number, root in roots.items():
        knots.tie(("root", root), ("change", number))
    ours: dict[Node, list[_Waiting]] = {}
    for one in _with_what_depends_on_it(connection, tracked, knots, set(roots)):
        ours.setdefault(knots.of(("change", one.id)), []).append(one)
    tied: dict[Node, list[list[Offer]]] = {}
    for node, said in offers.items():
        tied.setdefault(knots.of(node), []).append(said)
    joined = Joined(alone, {})
    for knot, some in tied.items():
        together = [one for said in some for one in said]
        name = _name(connection, ours.get(knot, []), together, now=now)
        joined.offered.extend([Offered(together, name)] if name is not None else map(Offered, some))
        joined.ours.update({one.id: name for one in ours.get(knot, []) if name and (one.may_move or one.refused)})
    return joined


def _with_what_depends_on_it(
    connection: Connection, tracked: Sequence[Tracked], knots: Knots, ours: set[int]
) -> list[_Waiting]:
    """These changes with their groups, and what comes after them and depends on them, tied to them."""
    footprints = Tables(tracked)
    changed: dict[bytes, Node] = {}
    needed: dict[bytes, Node] = {}
    found: list[_Waiting] = []
    with outbox.in_groups(connection) as rows:
        for _, some in groupby(rows, key=lambda row: row.group_id or row.id):
            group = list(some)
            footprint = footprints.footprint(group)
            before = [changed[it] for it in footprint.changes | footprint.needs if it in changed]
            before += [needed[it] for it in footprint.changes if it in needed]
            if not before and ours.isdisjoint(row.id for row in group):
                continue
            nodes: list[Node] = [("change", row.id) for row in group]
            knots.tie(*nodes, *before)
            waiting = [_waiting(row) for row in group]
            found += waiting
            if any(one.may_move for one in waiting):
                changed |= dict.fromkeys(footprint.changes, nodes[0])
                needed |= dict.fromkeys(footprint.needs, nodes[0])
    return found


def _waiting(row: outbox.Waiting) -> _Waiting:
    never_sent = row.state == "sent" and row.attempts == 0  # under the number that it has
    return _Waiting(
        id=row.id,
        group=row.group_id,
        size=outbox.size_of(row),
        on_its_way=row.state == "sent",
        refused=row.state in ("parked", "conflict"),
        may_move=row.state == "pending" or never_sent,
    )


def _name(connection: Connection, ours: Sequence[_Waiting], offers: Sequence[Offer], *, now: int) -> str | None:
    """Of the group that they are together; None where they cannot be one."""
    refused = [one for one in ours if one.refused]
    if refused:
        return next((one.group for one in refused if one.group), None) or token_hex(16)
    moving = [one for one in ours if one.may_move]
    size = sum(one.size for one in moving) + sum(renumbering.size_of(one) for one in offers)
    if not moving or len(moving) + len(offers) > MOST_OPS or size > MOST_GROUP:
        return None
    if any(one.on_its_way for one in moving):
        lanes.wait_until_it_rests(connection, now)
    return token_hex(16)
