"""Waking the push when there is something to push."""

from __future__ import annotations

from backhaul.database import Database
from backhaul.replica import outbox
from backhaul.work import ledger
from backhaul.work.ledger import Work


def wake_push(database: Database, now: int) -> Work | None:
    """The push, if it is due now because something waits; None when nothing does, or it runs, or it backs off.

    It writes only when there is something to change, so that looking again every second costs no commit.
    """
    with database.reading() as connection:
        push = ledger.get(connection, "push")
        if push is None or push.state != "ENQUEUED" or not outbox.pending(connection, now):
            return None
    if push.due_at <= now:
        return push
    with database.writing() as connection:
        return ledger.wake(connection, push.id, now)
