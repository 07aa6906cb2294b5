"""Ringing for what is due: Beat does it for everything, a gate for the queue that it has just opened.

Work that was never rung since it began to wait is rung at once. Work that was rung, and still waits, is rung again
only when no message waits in its queue: then either a message was lost, or a worker holds it and a second one does no
harm. A closed queue keeps its one message for each work, however long it stays closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from celery import Celery

from backhaul.database import Database
from backhaul.work import ledger
from backhaul.work.ledger import Work
from config.bell import publish
from workers.unheard import waiting_messages

BATCH = 500


def ring_due(
    app: Celery,
    database: Database,
    *,
    now: int,
    ring_again_ms: int,
    wanted: Callable[[Work], bool] = lambda _: True,
) -> int:
    """Returns how many were rung. Raises what the broker's client raises; what was not said is then not marked."""
    with database.reading() as connection:
        due = [work for work in ledger.due(connection, now, ring_again_ms=ring_again_ms, limit=BATCH) if wanted(work)]
    ringing = _unheard(app, due)
    if ringing:
        publish(app, [work.ring for work in ringing])
        with database.writing() as connection:
            ledger.mark_rung(connection, [work.id for work in ringing], now)
    return len(ringing)


def _unheard(app: Celery, due: Iterable[Work]) -> list[Work]:
    due = list(due)
    rung = {work.queue for work in due if work.rung_at}
    empty = {queue for queue in rung if not waiting_messages(app, queue)}
    return [work for work in due if not work.rung_at or work.queue in empty]
