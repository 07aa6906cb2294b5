"""Following: a replica says its tables again, and captures from then on as the scope has agreed.

Two things lead here. The server knows less than it was told (it was put back to a backup), and has refused changes for
what it did not know: they go out again, as what they were. Or the scope has agreed on something that a replica must
know before it pulls (`schema-behind`): what it has captured until then is sent as it is.

Where it may be cut: saying the tables twice is harmless, and what was refused is parked and put back into the queue in
one transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from backhaul.database import Database
from backhaul.errors import Refused
from backhaul.remotes.base import Remote
from backhaul.replica import capture_files, checkpoint, outbox, parked, strategies, tables, upgrades
from backhaul.replica.outbox import Change
from backhaul.telemetry import emit
from backhaul.wire import Pushed, Result, problem_name

NOT_KNOWN = ("table-unknown", "column-unknown")


def follow(database: Database, remote: Remote) -> None:
    """Say the tables as they are tracked, and track them as they are agreed. Raises TableAltered, TableUnfit, and what
    a remote raises."""
    with database.reading() as connection:
        tracked = tables.checked(connection)
        dialect = connection.dialect.name
    shapes = [one.table for one in tracked]
    agreed = strategies.agreed(shapes, remote.declare(shapes), dialect)
    with database.writing() as connection:
        checkpoint.hold(connection)
        if [one.table for one in tables.checked(connection)] != shapes:
            return  # another process has renewed them meanwhile, and has said so
        for before, now in zip(tracked, agreed, strict=True):
            if before.table != now:
                shape = capture_files.install(connection, now, before.media)
                upgrades.upgrade(connection, before.table, now)
                tables.track(connection, now, shape, media=before.media, again=False)
    emit("capture.followed", tables=sum(before != now for before, now in zip(shapes, agreed, strict=True)))


def refused_unknowing(database: Database, remote: Remote, changes: Sequence[Change], reply: Pushed) -> frozenset[str]:
    """The ids of the ops that the server has refused for what it did not know and knows now. Raises what a remote
    raises, but for a refusal: then they stay refused."""
    results = {result.op: result for result in reply.results if result.problem is not None}
    if not results:
        return frozenset()
    with database.reading() as connection:
        known = {one.table.name: one.table for one in tables.all_tracked(connection)}
    found = frozenset(
        one.op_id
        for one in changes
        if one.table_name in known and _is_unknown(results.get(one.op_id), deltas=bool(known[one.table_name].deltas()))
    )
    if found:
        try:
            follow(database, remote)
        except Refused:
            return frozenset()
    return found


def resume(connection: Connection, op_ids: Collection[str], *, now: int) -> int:
    """Put these parked changes back into the queue, with all that waits for them; returns how many."""
    if not op_ids:
        return 0
    parked.park_dependents(connection, now=now)
    rows = outbox.parked(connection)
    ids = [row["id"] for row in rows if row["op_id"] in op_ids]
    return outbox.resume(connection, parked.with_all_that_waits(rows, ids))


def _is_unknown(result: Result | None, *, deltas: bool) -> bool:
    """deltas: of a column that the server takes for a last write, what was done is no value."""
    if result is None or result.status != "rejected" or result.problem is None:
        return False
    name = problem_name(result.problem)
    return name in NOT_KNOWN or (deltas and name == "value-invalid")
