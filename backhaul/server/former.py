"""Ops that may have been sent before, under another number or by the replica that this one was then.

A database that was put back to a backup holds changes that the server took after the backup was made. They have the
same op ids as then, so they are known, and get the outcomes that they had: also where the same backup was put back
twice, and in a message of before that comes later than what the successor has sent, or what the replica itself has sent
anew when the server was put back. Outcomes are kept for 30 days: after that, a change whose stamp decides is merged
once more, which does no harm. One that adds is left to a person, and so is one that makes a record which is not here,
once deletions were forgotten: it may have been made and deleted. That is so of each op of before, and of what a replica
made before another one came of it: a copy of its database, which may have sent the same since. And what a person says
once more in sight of what became of it is merged once more, too: it is another answer to another question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import UNSET
from sqlalchemy import Connection

from backhaul.clock import stamp, stamp_to_text
from backhaul.server import lineage, outcomes
from backhaul.server.admission import Item
from backhaul.server.horizon import MOST_DRIFT_MS
from backhaul.server.problems import problem
from backhaul.server.records import Place
from backhaul.wire import Op, Result, Tagged

AHEAD_MS = 30 * 86_400_000  # a stamp may be so far ahead of when its change was made: the clock guard has held it


def known(connection: Connection, replica: str, ops: Sequence[Op], *, renumbered: bool) -> dict[int, Result]:
    """The results, by number, of those ops that were sent before: by this replica, by one that it was, or by one that
    came of those. renumbered: whether it, or one that came of it, has sent anything anew, under other numbers: then
    these may be of a message that hung in the network since before."""
    found: dict[int, Result] = {}
    former = [op for op in ops if op.former]
    if former:
        before = lineage.ancestors(connection, replica)
        found |= outcomes.recognise(connection, [*before, *lineage.successors(connection, before)], former)
    if renumbered:
        rest = [op for op in ops if not op.former]
        found |= outcomes.recognise(
            connection, [replica, *lineage.successors(connection, [replica])], rest, as_former=True
        )
    return found


def is_said_anew(op: Op, result: Result) -> bool:
    """Whether the op was taken before, and says the same once more in sight of that: a database from before has asked a
    person again, who has seen what others wrote since. It counts as a new one, unless it adds."""
    return 0 < result.version <= op.base and not _adds(op)


def refuse_forgotten(
    items: Sequence[Item], states: Mapping[Place, Any], collected: int, now: int, *, succeeded_at: int = 0
) -> None:
    """Give a problem to each op that may have taken effect before, and would do so again. collected: as in gone.py.
    succeeded_at: when the last replica came of the one that sends these; 0: none did."""
    oldest = now - outcomes.KEPT_MS + MOST_DRIFT_MS  # what was taken at that time may have had a later stamp
    shared = min(oldest, succeeded_at + AHEAD_MS) if succeeded_at else 0
    before, before_it_was_copied = (stamp_to_text(stamp(max(0, time))) for time in (oldest, shared))
    for item in items:
        if item.op.hlc < (before if item.op.former else before_it_was_copied) and item.problem is None:
            known = item.place is None or item.place in states
            what = "it is counted" if _adds(item.op) else "" if known or not collected else _was_deleted(item.op)
            if what:
                detail = f"it is older than the outcomes that the server remembers; look whether {what}"
                item.problem = problem("outcome-forgotten", detail, op=item.op.op)


def _was_deleted(op: Op) -> str:
    return "the record was deleted since" if op.kind == "insert" else ""


def _adds(op: Op) -> bool:
    return any(type(value) is Tagged and value.add is not UNSET for value in op.fields.values())
