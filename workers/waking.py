"""Waking the push when there is something to push, and what reads files when a row names one."""

from __future__ import annotations

from sqlalchemy import Connection

from backhaul.database import Database
from backhaul.replica import attachments, awaiting, outbox, tables
from backhaul.work import ledger
from backhaul.work.ledger import Work
from config.schedule import ATTACHING, TRANSFORMING


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
        if not awaiting.any_files(connection):
            return
        there = attachments.any_there(connection)
        sleeping = _sleeping(connection, now)
    if there:
        with database.writing() as connection:
            attachments.arrived(connection)
    awaiting.release(database)
    if sleeping:
        with database.writing() as connection:
            for name in sleeping:
                ledger.wake(connection, name, now)


def _sleeping(connection: Connection, now: int) -> list[str]:
    """The works that have files to read, and are not due."""
    due = attachments.tables_due(connection, now)
    if not due:
        return []
    made = {one.table.name for one in tables.all_tracked(connection) if one.media is not None and one.media.transform}
    names = {ATTACHING: due - made, TRANSFORMING: due & made}
    works = [ledger.get(connection, name) for name, of in names.items() if of]
    return [work.id for work in works if work is not None and work.state == "ENQUEUED" and work.due_at > now]
