"""Work of one kind that a run takes along: claimed, settled or given back together, whatever its number.

Taken along is what could be run here and now just as the run's own: of the same task and queue, demanding the same,
due, and nobody's. It is a claim like any other, under a lease and a fence; but what is given back was not begun.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Text, and_, column, or_, select, tuple_, update

from backhaul.errors import Stopped
from backhaul.schema import work as table
from backhaul.work.data import encode_data
from backhaul.work.ledger.asking import among, every
from backhaul.work.ledger.given import given
from backhaul.work.ledger.holding import free
from backhaul.work.ledger.running import UNCLAIMED
from backhaul.work.ledger.settling import NOT_BEGUN, succeed
from backhaul.work.row import Work


def claim_beside(connection: Connection, work: Work, ids: Collection[str], *, now: int, lease_ms: int) -> list[Work]:
    """ENQUEUED -> RUNNING, those of the ids that can be. work: the run's own. What others wait for is left out, and so
    is what is periodic."""
    wanted = and_(
        among(connection, table.c.id, [one for one in ids if one != work.id]),
        table.c.state == "ENQUEUED",
        table.c.due_at <= now,
        or_(table.c.expires_at.is_(None), table.c.expires_at > now, table.c.attempt > 0),
        *_alike(work),
    )
    values = {
        **UNCLAIMED,
        "state": "RUNNING",
        "attempt": table.c.attempt + 1,
        "fence": table.c.fence + 1,
        "node": work.node,
        "worker": work.worker,
        "process": work.process,
        "started_at": now,
        "started_before": table.c.started_at,
        "lease_until": now + lease_ms,
        "stop_reason": None,
        "stopped_before": table.c.stop_reason,
    }
    chosen = update(table).where(wanted, *free(connection, wanted))
    return every(connection, chosen.values(values).returning(table))


def succeed_beside(connection: Connection, outputs: Sequence[tuple[Work, Mapping[str, Any]]], *, now: int) -> list[str]:
    """RUNNING -> SUCCEEDED, each with its output; the ids of those that were still the run's."""
    if not outputs:
        return []
    rows = [(work.id, work.fence, encode_data("output", output)) for work, output in outputs]
    told = given(connection, (column("id", Text), column("fence", BigInteger), column("output", Text)), rows)
    held = and_(
        table.c.id == told.c.id, table.c.state == "RUNNING", table.c.fence == told.c.fence, table.c.children == 0
    )
    values = {
        **UNCLAIMED,
        "state": "SUCCEEDED",
        "finished_at": now,
        "output": told.c.output,
        "progress": None,
        "checkpoint": None,
        "losses": 0,
        "stop_reason": None,
        "last_outcome": "success",
        "last_error": None,
    }
    settled = set(connection.scalars(update(table).where(held).values(values).returning(table.c.id)))
    for work, output in outputs:
        if work.id not in settled:  # somebody has begun to wait for it; or it is the run's no more
            with suppress(Stopped):
                settled.add(succeed(connection, work, now=now, output=output).id)
    return sorted(settled)


def give_back(connection: Connection, works: Collection[Work]) -> None:
    """RUNNING -> ENQUEUED, due as it was; Beat rings for it, whose message may have come meanwhile."""
    if works:
        held = tuple_(table.c.id, table.c.fence).in_([(work.id, work.fence) for work in works])
        chosen = update(table).where(held, table.c.state == "RUNNING")
        connection.execute(chosen.values({**UNCLAIMED, "state": "ENQUEUED", **NOT_BEGUN}))


def _alike(work: Work) -> list[ColumnElement[bool]]:
    own = table.alias("own")
    requires = select(own.c.requires).where(own.c.id == work.id).scalar_subquery()
    return [
        table.c.task == work.task,
        table.c.queue == work.queue,
        table.c.requires == requires,
        table.c.interval_ms == 0,
        table.c.children == 0,
        table.c.parents == 0,
    ]
