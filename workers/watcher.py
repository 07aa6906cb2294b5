"""The watcher: notices what was written without our hook (plain sqlite3, another language), and rings for the push.

SQLite counts the commits of others for every connection (`PRAGMA data_version`); asking costs microseconds. Only when
the number has moved does it look into the outbox. On PostgreSQL the triggers ring (listener.py); because they ring but
a few times a second, and a bell can be missed, the outbox is looked at every half second all the same.
"""

from __future__ import annotations

import threading
from typing import Any

from celery import Celery, bootsteps
from celery.worker.consumer import Consumer

from backhaul.clock import SystemClock
from backhaul.database import Database, sqlite_file
from backhaul.errors import DatabaseBusy
from backhaul.replica import refill
from backhaul.telemetry import emit
from backhaul.work.ledger import Work
from workers.listener import Listener
from workers.replica import replica_of
from workers.ringing import ring_and_mark
from workers.waking import wake_push

LOOK_SECONDS = 0.5
LEAST_SECONDS = 0.05  # between two looks, however often the bell rings


class Watcher(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
    """In workers that serve the queue of the push."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, _consumer: Consumer, **_: Any) -> None:
        self._watch: Watch | None = None

    def start(self, consumer: Consumer) -> None:
        if self._watch is None:
            self._watch = Watch(consumer.app, served=set(consumer.app.amqp.queues.consume_from))
            self._watch.start()

    def shutdown(self, _consumer: Consumer) -> None:
        if self._watch is not None:
            self._watch.end()


class Watch:
    def __init__(self, app: Celery, *, served: set[str]) -> None:
        self._app = app
        self._served = served
        self._replica = replica_of(app)
        self._clock = SystemClock()
        self._seen: int | None = None
        self._ended = threading.Event()
        self._listener = None if sqlite_file(self._replica.settings.database_url) else self._listen()
        self._thread = threading.Thread(target=self._watch_for_ever, name="backhaul-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        if self._listener is not None:
            self._listener.close()

    def _listen(self) -> Listener:
        return Listener(self._replica.settings.database_url)

    def _wait(self) -> bool:
        """Until it is time to look; whether this is the end."""
        if self._listener is None or not self._listener.wait(LOOK_SECONDS):
            return self._ended.wait(LOOK_SECONDS)
        return self._ended.wait(LEAST_SECONDS)

    def _watch_for_ever(self) -> None:
        while not self._wait():
            try:
                self._ring(self._look())
            except DatabaseBusy:
                self._seen = None
            except Exception as error:  # the thread must go on; Beat looks too
                self._seen = None
                emit("bell.failed", error=type(error).__name__)

    def _look(self) -> Work | None:
        with self._replica.database.using() as database:
            if not self._has_moved(database):
                return None
            refill.turn(database, now=self._clock.now())  # before the app's next rows take numbers of another replica
            return wake_push(database, self._clock.now())

    def _ring(self, push: Work | None) -> None:
        """Once: while its message waits, say in a closed queue, more of them would only pile up."""
        if push is not None and not push.rung_at:
            ring_and_mark(self._app, self._replica.database, [push], self._clock.now())

    def _has_moved(self, database: Database) -> bool:
        if not database.sqlite:
            return True
        with database.reading() as connection:
            version: int = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
        before, self._seen = self._seen, version
        return version != before
