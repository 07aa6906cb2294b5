"""Records that become visible to others only with their files: their changes are held until the server has those.

Held with them is what depends on them, as with what is parked: later changes of the same record, the transaction as a
whole, records that refer to one which is to be created. All else goes on. The server knows nothing of it: to it, and
to all others, the record was written when it is sent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, text

from backhaul.database import Database
from backhaul.replica import attachments, checkpoint, dependents, outbox, parked, rows, tables
from backhaul.replica.tables import Tracked


def any_waits(connection: Connection) -> bool:
    """Whether something may have to be held."""
    return attachments.any_together(connection) or outbox.any_held(connection)


def any_files(connection: Connection) -> bool:
    """Whether a file that a row names is not on the server yet, or a change still waits for one that is."""
    query = """
        SELECT EXISTS (SELECT 1 FROM backhaul_attachment)
            OR EXISTS (SELECT 1 FROM backhaul_outbox WHERE state = 'held')
    """
    return bool(connection.execute(text(query)).scalar_one())


def hold(connection: Connection, tracked: Sequence[Tracked], *, first: int, last: int) -> bool:
    """Hold what waits for a file, of the pending changes between two outbox ids, and what depends on it. Whether there
    was any."""
    found = outbox.awaiting(connection, first=first, last=last)
    outbox.hold_back(connection, found, reason=outbox.AWAITS)
    return _hold_dependents(connection, tracked, first=first, last=last) or bool(found)


def release(database: Database) -> int:
    """Let go what need not wait any more, and what was held with it, in its order; returns how many. Raises
    DatabaseBusy, where the app is in the middle of writing such a record: the next time, then.

    What came after it on the same records goes behind it, and what the app has not committed yet may not be missed.
    """
    with database.reading() as connection:
        if not outbox.any_held(connection) or not outbox.free(connection):
            return 0
    with database.writing() as connection:
        checkpoint.hold(connection)
        tracked = tables.all_tracked(connection)
        ids = _all_of(connection)
        rows.hold_all(connection, [one.table for one in tracked], _places(connection, ids))
        _hold_dependents(connection, tracked)
        return outbox.resume(connection, _all_of(connection), state="held")


def _all_of(connection: Connection) -> list[int]:
    """What is free, and all that may not stay behind."""
    return parked.with_all_that_waits(outbox.held(connection), outbox.free(connection))


def _places(connection: Connection, ids: Collection[int]) -> list[tuple[str, str]]:
    chosen = set(ids)
    return [(row["table_name"], row["key"]) for row in outbox.held(connection) if row["id"] in chosen]


def _hold_dependents(
    connection: Connection, tracked: Sequence[Tracked], *, first: int = 0, last: int = 2**63 - 1
) -> bool:
    any_held = False
    while causes := dependents.find(connection, tracked, of="held", first=first, last=last):
        details = {one: f"depends on the held change {cause}" for one, cause in causes.items()}
        outbox.hold_back(connection, details, reason=outbox.DEPENDS)
        any_held = True
    return any_held
