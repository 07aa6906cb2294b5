"""Ops that may have been sent before, under another number or by the replica that this one was then.

A database that was put back to a backup holds changes that the server took after the backup was made. They have the
same op ids as then, so they are known, and get the outcomes that they had. Outcomes are kept for 30 days: after that, a
change whose stamp decides is merged once more, which does no harm, and one that adds is left to a person.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET
from sqlalchemy import Connection

from backhaul.clock import stamp, stamp_to_text
from backhaul.server import auth, outcomes
from backhaul.server.admission import Item
from backhaul.server.problems import problem
from backhaul.wire import Op, Result, Tagged


def known(connection: Connection, replica: str, ops: Sequence[Op]) -> dict[int, Result]:
    """The results, by number, of those ops that were sent before."""
    former = [op for op in ops if op.former]
    return outcomes.recognise(connection, auth.lineage(connection, replica), former) if former else {}


def refuse_forgotten(items: Sequence[Item], now: int) -> None:
    """Give a problem to each op that adds to a counter, and may have done so before."""
    oldest = stamp_to_text(stamp(max(0, now - outcomes.KEPT_MS)))
    for item in items:
        if item.op.former and item.op.hlc < oldest and item.problem is None and _adds(item.op):
            detail = "it is older than the outcomes that the server remembers; look whether it is counted"
            item.problem = problem("outcome-forgotten", detail, op=item.op.op)


def _adds(op: Op) -> bool:
    return any(type(value) is Tagged and value.add is not UNSET for value in op.fields.values())
