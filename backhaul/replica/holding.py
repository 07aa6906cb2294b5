"""What becomes of our changes around a conflict: which are one conflict, and which are held with it.

A change is held with a conflict when it comes later on one of its records, is of one of its transactions, refers to a
record that it would have made, or changes an aggregate that it changes. Held, it goes wherever the conflict goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from sqlalchemy import Connection

from backhaul.merge.aggregate import Place
from backhaul.replica import conflicts, dependents, outbox, rows, unseen, upgrades
from backhaul.replica.contested import Entry
from backhaul.replica.knots import Knots, Node
from backhaul.replica.outbox import Conflicting
from backhaul.replica.roots import Roots, fields_of
from backhaul.replica.tables import Tracked
from backhaul.telemetry import emit
from backhaul.wire import Problem, Result


def settled(connection: Connection, tracked: Sequence[Tracked], results: Iterable[Result], *, now: int) -> None:
    """Enter the changes that have just been answered as conflicts, and hold what was sent beside them in vain."""
    problems = {one.op: one.problem for one in results if one.status == "conflict" and one.problem is not None}
    enter(connection, tracked, problems, now=now)
    while causes := held_with(connection, tracked, state="sent"):
        outbox.hold_sent(connection, causes, now=now)
        enter(connection, tracked, {}, now=now, causes=_by_op(connection, causes))


def hold_pending(
    connection: Connection, tracked: Sequence[Tracked], *, now: int, first: int = 0, last: int = 2**63 - 1
) -> bool:
    """Hold what waits between these outbox ids and depends on a conflict; returns whether there was something."""
    causes = held_with(connection, tracked, state="pending", first=first, last=last)
    if causes:
        outbox.hold(connection, causes, now=now)
        enter(connection, tracked, {}, now=now, causes=_by_op(connection, causes))
    return bool(causes)


def open_entries(connection: Connection, tracked: Sequence[Tracked], number: int, *, now: int) -> list[Entry]:
    """The records of an open conflict, held, and with all that waits of them: what the app is about to commit is part
    of it, too. None where there is no such conflict."""
    held: set[Place] = set()
    while True:
        while hold_pending(connection, tracked, now=now):
            pass
        entries = [entry for entry in conflicts.of_number(connection, number) if entry.state == "open"]
        more = {entry.place for entry in entries} - held
        if not more:
            return entries
        rows.hold_all(connection, [one.table for one in tracked], more)
        held |= more


def unsee(connection: Connection, tracked: Sequence[Tracked], *, first: int, last: int) -> None:
    """What the app wrote into a field, or into an aggregate, of which something is withheld, it wrote without having
    seen that, however far the pull had got: what waits to be sent between these outbox ids says so."""
    outbox.lower_base(connection, unseen.true_bases(connection, first=first, last=last))
    withheld = conflicts.unseen(connection)
    if not withheld:
        return
    roots = Roots(connection, [one.table for one in tracked])
    changes = [
        change
        for table in sorted(roots.tables)
        for change in outbox.unsettled_of(connection, table, ["pending"], first=first, last=last)
    ]
    bases = {
        change.id: withheld[root]
        for change, root in zip(changes, _roots(roots, changes), strict=True)
        if root in withheld and change.base > withheld[root]
    }
    outbox.lower_base(connection, bases)


def held_with(
    connection: Connection,
    tracked: Sequence[Tracked],
    *,
    state: Literal["pending", "sent"],
    first: int = 0,
    last: int = 2**63 - 1,
) -> dict[int, str]:
    """The changes in this state that depend directly on a conflict: id -> the op id of that one."""
    if not outbox.any_conflict(connection):
        return {}
    causes = dependents.find(connection, tracked, of="conflict", state=state, first=first, last=last)
    roots = Roots(connection, [one.table for one in tracked])
    contested = conflicts.open_roots(connection) if roots.tables else {}
    if contested:
        changes = [
            change
            for table in sorted(roots.tables)
            for change in outbox.unsettled_of(connection, table, [state], first=first, last=last)
        ]
        for change, root in zip(changes, _roots(roots, changes), strict=True):
            if root in contested:
                causes.setdefault(change.id, contested[root])
    return causes


def enter(
    connection: Connection,
    tracked: Sequence[Tracked],
    problems: Mapping[str, Problem],
    *,
    now: int,
    causes: Mapping[str, str] | None = None,
) -> None:
    """Enter all changes that are conflicts and in none of the ledger's yet. problems, causes: by op id; what the server
    has said of each, and what each is held with."""
    changes = upgrades.catch_up(connection, [one.table for one in tracked], outbox.unnumbered(connection))
    if not changes:
        return
    causes = dict(causes or {}) | {op: problem.cause for op, problem in problems.items() if problem.cause}
    roots = _roots(Roots(connection, [one.table for one in tracked]), changes)
    known = {change.id: root for change, root in zip(changes, roots, strict=True)}
    places = {(change.table, change.key) for change in changes}
    found = conflicts.live(connection, places)
    found |= {entry.place: entry for entry in conflicts.rooted(connection)}
    knots = Knots()
    for entry in found.values():
        knots.tie(("record", entry.place), *_existing(entry))
    groups = sorted({change.group_id for change in changes if change.group_id is not None})
    for near in outbox.conflicting_near(connection, sorted(causes.values()), groups):
        knots.tie(("op", near.op_id), ("number", near.number), *([("group", near.group_id)] if near.group_id else []))
    for change in changes:
        nodes: list[Node] = [("op", change.op_id), ("record", (change.table, change.key))]
        nodes += [("group", change.group_id)] if change.group_id is not None else []
        root = known[change.id]
        nodes += [("root", root)] if root is not None else []
        cause = causes.get(change.op_id or "")
        knots.tie(*nodes, *([("op", cause)] if cause else []))
    for tied in knots.all():
        ours = [change for change in changes if ("op", change.op_id) in tied]
        if ours:
            entries = [entry for place, entry in found.items() if ("record", place) in tied]
            _enter_one(connection, tied, ours, entries, known, problems, now=now)


def _enter_one(
    connection: Connection,
    nodes: set[Node],
    changes: Sequence[Conflicting],
    entries: Sequence[Entry],
    roots: Mapping[int, Place | None],
    problems: Mapping[str, Problem],
    *,
    now: int,
) -> None:
    """One conflict: a new one, or more of one that is open, or several that turn out to be one."""
    numbers = sorted(int(str(name)) for kind, name in nodes if kind == "number")
    by_place = {entry.place: entry for entry in entries}
    for change in changes:
        made = Entry(table=change.table, key=change.key, opened_at=now)
        entry = by_place.setdefault((change.table, change.key), made)
        root = roots[change.id]
        entry.roots += (root,) if root is not None and root not in entry.roots else ()
        _add(entry, change, problems.get(change.op_id or ""))
    first = by_place[changes[0].table, changes[0].key]
    number = numbers[0] if numbers else conflicts.begin(connection, first)
    if not numbers:
        emit("conflict.opened", conflict=number, table=first.table, reason=first.reason)
    if numbers[1:]:
        conflicts.join(connection, number, numbers[1:])
        outbox.join_conflicts(connection, number, numbers[1:])
    for entry in by_place.values():
        entry.number, entry.state = number, "open"
    conflicts.keep(connection, list(by_place.values()))
    outbox.number(connection, {change.id: number for change in changes})


def _add(entry: Entry, change: Conflicting, problem: Problem | None) -> None:
    """One more change of ours to the record."""
    entry.ops.append(change.op_id or "")
    entry.base = change.base if entry.base is None else min(entry.base, change.base)
    entry.wrote(change.kind, fields_of(change.fields))
    if not entry.reason or (change.reason != "depends-on-conflict" and entry.reason == "depends-on-conflict"):
        entry.reason, entry.detail = change.reason or "", change.detail or ""
    if problem is not None:
        entry.told(problem)
        if change.told is not None and change.told > problem.version:
            entry.there = "unknown"  # the answer is from before, and what the feed has told since was not kept


def _existing(entry: Entry) -> list[Node]:
    nodes: list[Node] = [("root", root) for root in entry.roots]
    return nodes + ([("number", entry.number)] if entry.number is not None else [])


def _roots(roots: Roots, changes: Sequence[Conflicting]) -> list[Place | None]:
    return roots.of([(change.table, change.key, fields_of(change.fields)) for change in changes])


def _by_op(connection: Connection, causes: Mapping[int, str]) -> dict[str, str]:
    return {change.op_id or "": causes[change.id] for change in outbox.unnumbered(connection) if change.id in causes}
