"""Ringing for what is due: Beat does it for everything, a gate for the queue that it has just opened.

Work that was never rung since it began to wait is rung at once. Work that was rung, and still waits, is rung again
only when no message waits in its queue: then either a message was lost, or a worker holds it and a second one does no
harm. A closed queue keeps its one message for each work, however long it stays closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from celery import Celery
from kombu.exceptions import ChannelError

from backhaul.work import ledger
from backhaul.work.ledger import Work
from config.bell import publish
from workers.database import WorkerDatabase

BATCH = 500


def ring_due(
    app: Celery,
    database: WorkerDatabase,
    *,
    now: int,
    ring_again_ms: int,
    wanted: Callable[[Work], bool] = lambda _: True,
) -> int:
    """Returns how many were rung. Raises what the broker's client raises; what was not said is then not marked."""
    with database.using() as opened, opened.reading() as connection:
        due = [work for work in ledger.due(connection, now, ring_again_ms=ring_again_ms, limit=BATCH) if wanted(work)]
    ringing = _unheard(app, due)
    if ringing:
        publish(app, [work.ring for work in ringing])
        with database.using() as opened, opened.writing() as connection:
            ledger.mark_rung(connection, [work.id for work in ringing], now)
    return len(ringing)


def _unheard(app: Celery, due: Iterable[Work]) -> list[Work]:
    due = list(due)
    rung = {work.queue for work in due if work.rung_at}
    empty = {queue for queue in rung if not waiting_messages(app, queue)}
    return [work for work in due if not work.rung_at or work.queue in empty]


def waiting_messages(app: Celery, queue: str) -> int:
    """How many messages wait in the broker for a worker; none when the broker does not know the queue."""
    with app.pool.acquire(block=True, timeout=1) as connection, connection.channel() as channel:
        try:
            return int(channel.queue_declare(queue, passive=True).message_count)
        except (ChannelError, *connection.channel_errors):
            return 0
