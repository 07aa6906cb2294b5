"""Ringing for what is due: Beat does it for every queue, a gate for the queue that it has just opened.

Work that was never rung since it began to wait is rung at once. Work that was rung, and still waits, is rung again
only when no message waits in its queue, and a worker listens there: then either a message was lost, or a worker holds
it and a second one does no harm. A closed queue keeps its one message for each work, however long it stays closed.
"""

from __future__ import annotations

from collections.abc import Collection

from celery import Celery
from kombu.exceptions import ChannelError
from sqlalchemy import Connection

from backhaul.work import ledger, roster
from backhaul.work.ledger import Work
from config.bell import publish
from workers.database import WorkerDatabase

RING_AGAIN_MS = 5_000
BATCH = 200
WORKER_ALIVE_MS = 15_000


def ring_due(
    app: Celery, database: WorkerDatabase, *, now: int, ring_again_ms: int, queues: Collection[str]
) -> list[Work]:
    """What was rung. queues: declared ones; a row of any other waits until its queue is declared again.

    The broker is asked only of queues that are open on a live worker, and in which something was rung and not run.
    What another transaction holds is left out: nobody could claim it.
    Raises what the broker's client raises; what was not said is then not marked.
    """
    with database.using() as opened, opened.reading() as connection:
        heard = _heard(connection, now).intersection(queues)
        pressing = ledger.have_rung(connection, now, ring_again_ms=ring_again_ms, queues=heard)
        due = [] if pressing else _due(connection, now, ring_again_ms, queues, silent=())
    if pressing:
        silent = [queue for queue in pressing if not waiting_messages(app, queue)]
        with database.using() as opened, opened.reading() as connection:
            due = _due(connection, now, ring_again_ms, queues, silent=silent)
    if due:
        with database.using() as opened:
            if not opened.sqlite:
                with opened.writing() as connection:
                    due = ledger.free_of(connection, due)
    ring_and_mark(app, database, due, now)
    return due


def _heard(connection: Connection, now: int) -> set[str]:
    """The queues that are open on a live worker; its clock may be another one."""
    workers = roster.alive(connection, now, WORKER_ALIVE_MS + roster.MOST_SKEW_MS)
    return {queue.name for worker in workers for queue in worker.queues if queue.open}


def _due(
    connection: Connection, now: int, ring_again_ms: int, queues: Collection[str], *, silent: Collection[str]
) -> list[Work]:
    unheard = set(queues).difference(silent)
    return ledger.due(connection, now, ring_again_ms=ring_again_ms, limit=BATCH, unheard=unheard, queues=queues)


def ring_and_mark(app: Celery, database: WorkerDatabase, works: Collection[Work], now: int) -> None:
    if works:
        publish(app, [work.ring for work in works])
        with database.using() as opened, opened.writing() as connection:
            ledger.mark_rung(connection, works, now)


def waiting_messages(app: Celery, queue: str) -> int:
    """How many messages wait in the broker for a worker; none when the broker does not know the queue."""
    with app.pool.acquire(block=True, timeout=1) as connection, connection.channel() as channel:
        try:
            return int(channel.queue_declare(queue, passive=True).message_count)
        except (ChannelError, *connection.channel_errors):
            return 0
