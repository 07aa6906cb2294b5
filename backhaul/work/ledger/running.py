"""RUNNING: what a run does to its own work until it settles, under its fence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Update, func, update

from backhaul.errors import Misused, Stopped
from backhaul.schema import work as table
from backhaul.work.data import encode_data
from backhaul.work.ledger.asking import get, one
from backhaul.work.row import Work

UNCLAIMED: Mapping[str, Any] = {
    "node": None,
    "worker": None,
    "process": None,
    "lease_until": 0,
    "stop_requested": None,
    "rung_at": 0,
}


def renew(
    connection: Connection,
    work: Work,
    *,
    now: int,
    lease_ms: int,
    progress: Mapping[str, Any] | None = None,
    stopping: str | None = None,
) -> str | None:
    """Keep the lease, and the progress if there is any; returns why the run should stop, if it should. stopping: why it
    has been asked to, if it was asked here: a worker that is lost then has not been lost by its work.

    Raises Stopped("LEASE_EXPIRED") when the work is no longer this run's, Misused for progress that is no small JSON.
    """
    values: dict[str, Any] = {"lease_until": now + lease_ms}
    if progress is not None:
        values["progress"] = encode_data("progress", progress)
    if stopping is not None:
        values["stop_requested"] = func.coalesce(table.c.stop_requested, stopping)
    renewed = one(connection, held(work).values(values).returning(table))
    if renewed is not None:
        return renewed.stop_requested
    stopped = lost(connection, work)
    if stopped.reason == "CANCELLED_BY_APP":
        return stopped.reason
    raise stopped


def asked_to_stop(connection: Connection, work: Work) -> str | None:
    """Why this run should stop, if it should; a look, that changes nothing."""
    row = get(connection, work.id)
    if row is not None and row.state == "RUNNING" and row.fence == work.fence:
        return row.stop_requested
    return _why_lost(row, work)


def set_interval(connection: Connection, work: Work, interval_ms: int) -> None:
    """Another interval for sync's own periodic work, from the end of this run on. Its generation stays: what is asked
    for is the same. Raises Misused for a host's: that keeps the interval it was given."""
    if not work.ours or not work.periodic:
        raise Misused(f"the work {work.id!r} is none of sync's own periodic work", hint="its interval is the host's")
    connection.execute(held(work).values(interval_ms=interval_ms))


def keep_checkpoint(connection: Connection, work: Work, checkpoint: Mapping[str, Any] | None) -> None:
    """Keep what the next try is to begin with; None forgets it. Raises Stopped when the work is no longer this run's,
    Misused for what is no small JSON."""
    text = None if checkpoint is None else encode_data("checkpoint", checkpoint)
    if connection.execute(held(work).values(checkpoint=text)).rowcount == 0:
        raise lost(connection, work)


def held(work: Work) -> Update:
    """The row, while it is this run's."""
    return update(table).where(table.c.id == work.id, table.c.state == "RUNNING", table.c.fence == work.fence)


def lost(connection: Connection, work: Work) -> Stopped:
    """Where the row is no longer this run's: what its run is told."""
    reason = _why_lost(get(connection, work.id), work)
    return Stopped(reason, f"the work {work.id} is no longer this run's")


def _why_lost(row: Work | None, work: Work) -> str:
    cancelled = row is not None and row.state == "CANCELLED" and row.fence == work.fence
    return "CANCELLED_BY_APP" if cancelled else "LEASE_EXPIRED"
