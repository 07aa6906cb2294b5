"""Apply ops to the records that they are about: hold them against these, merge, give out versions, write.

The refusal of an op may refuse others, and may be found only when it is merged: then what is left is merged anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter

import msgspec
from sqlalchemy import Connection

from backhaul.merge import Functions, State, merge
from backhaul.merge.aggregate import Aggregates
from backhaul.server import aggregates, conflicts, former, leaps, names, records, tables, trial
from backhaul.server.admission import Item, read, refuse
from backhaul.server.auth import Replica
from backhaul.server.gone import refuse_gone
from backhaul.server.horizon import Standing
from backhaul.server.problems import is_conflict, refusal
from backhaul.server.records import Place
from backhaul.server.tables import Shape
from backhaul.wire import Op, Result, Status, canonical_key


def apply(
    connection: Connection,
    replica: Replica,
    ops: Sequence[Op],
    refused: Sequence[tuple[Op, Result]],
    position: int,
    functions: Functions,
    standing: Standing,
    now: int,
) -> tuple[list[Result], int]:
    """The result of each op, and the position after them. refused: the ops of this push that were refused before.

    Raises Refused `server-restored`: an op is of an aggregate of which its app has seen what this server has lost. What
    is lost of it is offered beside the op, or it would be judged half. The same of any op whose app may have seen that,
    for all that is known of its replica: what it saw has other meanings now.
    """
    shapes = tables.shapes(connection, replica.scope, functions)
    newest = tables.newest_names_of(shapes)
    whole = Aggregates(shapes)
    ops = names.read(ops, newest)
    may_be_lost = standing.leaps and any(leaps.may_be_lost(standing.leaps, op.base, standing.heard) for op in ops)
    if may_be_lost or any(op.base > position and op.table in whole.tables for op in ops):
        raise refusal("server-restored", f"the server was put back to a backup: it is at position {position}")
    refused = list(zip(names.read([op for op, _ in refused], newest), [one for _, one in refused], strict=True))
    if standing.leaps or any(op.base > position for op in ops):
        ops = [_modest(op, position, standing) for op in ops]
    items = [read(op, shapes, replica.id, standing.lineage) for op in ops]
    places = {item.place: None for item in items if item.place is not None and item.change is not None}
    states = records.find(connection, replica.scope, places)
    before = [Item(op=op, place=(op.table, canonical_key(op.key)), problem=result.problem) for op, result in refused]
    former.refuse_forgotten(items, states, standing.collected, now, succeeded_at=standing.succeeded_at)
    refuse_gone(items, states, standing.collected)
    while True:
        refuse(before + items, states, shapes)
        conflicts.find_roots(before + items, states, whole)
        marks = aggregates.find(connection, replica.scope, {root: None for item in items for root in item.roots})
        conflicts.hold(before + items, states, shapes, whole, marks)
        versions, reached = _versions(items, position)
        try:
            merged = _merged(items, states, versions, shapes, whole)
        except Exception:
            if not trial.blame(items, states, shapes):
                raise
            continue
        if not trial.refuse_too_large(items, states, merged, shapes):
            break
    conflicts.tell_theirs(items, {**states, **merged}, marks)
    records.keep(connection, replica.scope, merged)
    changed = conflicts.changed_roots(items, versions, merged)
    aggregates.keep(connection, replica.scope, changed, marks, replica.id, standing.lineage)
    return [_result(item, version) for item, version in zip(items, versions, strict=True)], reached


def _modest(op: Op, position: int, standing: Standing) -> Op:
    """An app cannot have seen what is not there yet, or was leapt over: it saw it before this server was put back, and
    it counts for nothing now."""
    seen = op.base <= position and not leaps.was_never(standing.leaps, op.base)
    return op if seen else msgspec.structs.replace(op, base=0)


def _versions(items: Sequence[Item], position: int) -> tuple[list[int], int]:
    """One new version for each group that is accepted, in the order of their first ops; 0 for what is refused."""
    versions: list[int] = []
    of_group: dict[str, int] = {}
    for item in items:
        group = item.op.group
        if item.problem is not None:
            versions.append(0)
        elif group in of_group and group is not None:
            versions.append(of_group[group])
        else:
            position += 1
            versions.append(position)
            if group is not None:
                of_group[group] = position
    return versions, position


def _merged(
    items: Sequence[Item],
    states: Mapping[Place, State],
    versions: Sequence[int],
    shapes: Mapping[str, Shape],
    whole: Aggregates,
) -> dict[Place, State]:
    """The records that are not as they were, by group: versions only grow."""
    changed: dict[Place, State] = {}
    for version, item in sorted(zip(versions, items, strict=True), key=itemgetter(0)):
        place, change = item.place, item.change
        if version and change is not None and place is not None:
            before = changed.get(place) or states.get(place)
            after = merge(before, change, version, shapes[place[0]].strategies)
            if after is not before:
                changed[place] = conflicts.remembering_root(before, after, place[0], whole)
    return changed


def _result(item: Item, version: int) -> Result:
    if item.problem is not None:
        status: Status = "conflict" if is_conflict(item.problem) else "rejected"
        return Result(op=item.op.op, status=status, problem=item.problem)
    return Result(item.op.op, "applied", version)
