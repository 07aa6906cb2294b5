"""Waking the push when there is something to push, and what reads files when a row names one."""

from __future__ import annotations

from backhaul.database import Database
from backhaul.replica import attachments, awaiting, outbox
from backhaul.work import ledger
from backhaul.work.ledger import Work
from config.schedule import ATTACHING


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


def see_to_files(database: Database, now: int) -> None:
    """Done with is what the server has, and what waited for that goes on; what is to be read is woken for. It writes
    only when there is something to change. Raises DatabaseBusy."""
    with database.reading() as connection:
        there = attachments.any_there(connection)
        due = attachments.any_due(connection, now)
        work = ledger.get(connection, ATTACHING) if due else None
    if there:
        with database.writing() as connection:
            attachments.arrived(connection)
    awaiting.release(database)
    if work is not None and work.state == "ENQUEUED" and work.due_at > now:
        with database.writing() as connection:
            ledger.wake(connection, work.id, now)
