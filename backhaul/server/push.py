"""A push: its ops by their numbers and stamps, each with its outcome, in one transaction.

A push is a handful of statements, whatever it holds: lock the scope, read the mark, the tables and the records that
the batch is about; decide and merge in memory; write the records, the outcomes, the position and the mark. Where it
may be cut: before the commit nothing happened, and the same bytes come again; after it the outcomes are stored, and
the same bytes get them again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sqlalchemy import Connection

from backhaul.clock import stamp, stamp_from_text, stamp_milliseconds, stamp_to_text
from backhaul.lanes import lane_of
from backhaul.merge import Functions
from backhaul.server import auth, former, horizon, lineage, names, outcomes, scopes
from backhaul.server.apply import apply
from backhaul.server.auth import Replica
from backhaul.server.problems import problem, refusal
from backhaul.wire import Op, Result

STAMPED = ("insert", "update", "delete")  # the kinds whose stamp counts


def take(connection: Connection, replica: Replica, ops: Sequence[Op], now: int, functions: Functions) -> list[Result]:
    """One result for each op, in the order of the ops.

    Raises Refused for the push as a whole: `replica-forked`, `sequence-gap`, `replica-revoked`, `cursor-expired`,
    `server-restored`.
    """
    position = scopes.lock(connection, replica.scope)
    mark = outcomes.high_water(connection, replica.id, lane_of(ops[0].seq) if ops else 0)
    standing = horizon.standing(connection, replica)
    fresh = _fresh(ops, mark)
    results = outcomes.replay(connection, replica.id, [op for op in ops if op.seq <= mark])
    accepted = _undrifted(fresh, now, standing.hlc)
    if accepted:
        renumbered = standing.renumbered or standing.succeeded_at > 0
        again = former.known(connection, replica.id, accepted, renumbered=renumbered)
        said = {op.seq: op for op in accepted}
        results |= {seq: one for seq, one in again.items() if not former.is_said_anew(said[seq], one)}
        versions = [result.version for result in again.values() if result.version]
        known = lineage.learn(connection, replica.id, standing.lineage, versions)
        standing = dataclasses.replace(standing, lineage=known)
        new = [op for op in accepted if op.seq not in results]
        refused = [(op, results[op.seq]) for op in ops if op.seq in results and results[op.seq].problem]
        settled, reached = apply(connection, replica, new, refused, position, functions, standing, now)
        results |= {op.seq: result for op, result in zip(new, settled, strict=True)}
        outcomes.keep(connection, replica.id, accepted, [results[op.seq] for op in accepted], now)
        first, last = ops[0].seq, accepted[-1].seq
        outcomes.advance(connection, replica.id, since=mark, to=last, first=first, now=now)
        scopes.advance(connection, replica.scope, since=position, to=reached, hlc=_highest(new), now=now)
    if any(result.problem is not None and result.problem.theirs for result in results.values()):
        names.told_problems(ops, results, *auth.names_of(connection, replica.scope, replica.id))
    results |= {op.seq: _drifted(op, now) for op in fresh[len(accepted) :]}
    return [results[op.seq] for op in ops]


def _fresh(ops: Sequence[Op], mark: int) -> list[Op]:
    """The ops that have no outcome yet: all of one lane. Raises Refused `sequence-gap`."""
    fresh = [op for op in ops if op.seq > mark or lane_of(op.seq) != lane_of(mark)]
    for expected, op in enumerate(fresh, start=mark + 1):
        if op.seq != expected:
            raise refusal("sequence-gap", f"number {expected} is due where {op.seq} stands", due=expected)
    return fresh


def _highest(ops: Sequence[Op]) -> int:
    """The highest of the stamps that count."""
    highest = max((op.hlc for op in ops if op.kind in STAMPED), default="")
    return stamp_from_text(highest) if highest else 0


def _undrifted(ops: Sequence[Op], now: int, taken: int) -> Sequence[Op]:
    """The ops before the first one whose clock is too far ahead, and before the first of its group.

    taken: the highest stamp of the scope. If our own clock was ahead once, it may be: then stamps go on from there.
    """
    latest = max(now + horizon.MOST_DRIFT_MS, stamp_milliseconds(taken) + 1)
    first_refused = stamp_to_text(stamp(latest + 1))  # stamps sort as text
    cut = next((index for index, op in enumerate(ops) if op.hlc >= first_refused and op.kind in STAMPED), len(ops))
    started: dict[str, int] = {}
    for index, op in enumerate(ops):
        if op.group is not None:
            started.setdefault(op.group, index)
    for index in range(len(ops) - 1, -1, -1):  # a group that begins earlier moves the cut, which may meet another
        if index < cut:
            break
        group = ops[index].group
        cut = cut if group is None else min(cut, started[group])
    return ops[:cut]


def _drifted(op: Op, now: int) -> Result:
    detail = f"a stamp may be {horizon.MOST_DRIFT_MS} ms ahead of {now}; send it again, stamped anew or later"
    return Result(op=op.op, status="retry", problem=problem("clock-drift", detail, op=op.op))
