"""The bell that Celery's workers hear: a message that names a work and its generation.

The app that rings has just committed and must not wait, so ringing is putting a note into a dict. One daemon thread
takes the notes out and publishes them. It is a hint: notes of one run become one message, a broker that does not
answer is left alone for a while, and what could not be said is dropped (Beat and the watcher find the work anyway).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backhaul import bell
from backhaul.bell import Ring
from backhaul.telemetry import emit
from config.queues import declared
from config.settings import Settings, load

if TYPE_CHECKING:
    from celery import Celery

GATHER_SECONDS = 0.005  # one transaction often rings for several works
APART_SECONDS = 0.020
QUIET_SECONDS = 1.0  # after a failure
CLOSE_SECONDS = 1.0
MOST_WAITING = 1_000


def open_bell(home: Path) -> CeleryBell:
    """The bell of the replica in this folder. It never starts a broker."""
    return CeleryBell(load(home))


def publish(app: Celery, rings: Iterable[Ring]) -> int:
    """Send a message for each; returns how many. Raises what Celery, Kombu and the broker's client raise."""
    sent = 0
    with app.producer_pool.acquire(block=True, timeout=QUIET_SECONDS) as producer:
        for ring in rings:
            app.send_task(
                ring.task,
                args=[ring.work_id, ring.generation],
                task_id=ring.task_id,
                queue=ring.queue,
                producer=producer,
                ignore_result=True,
                add_to_parent=False,
            )
            sent += 1
    return sent


class CeleryBell:
    """Rings without ever raising or blocking. failures: how often the broker could not be told."""

    def __init__(self, settings: Settings) -> None:
        self.queues: Sequence[bell.Queue] = declared(settings)
        self.failures = 0
        self._settings = settings
        self._begin()

    def ring(self, ring: Ring) -> None:
        if self._pid != os.getpid():
            self._begin()  # a forked child has neither the thread nor a usable lock
        with self._changed:
            if len(self._waiting) < MOST_WAITING:
                self._waiting[ring.task_id] = ring
            if self._thread is None:
                self._thread = self._start()
            self._changed.notify()

    def close(self) -> None:
        """Publish what waits, for at most a second, and end the thread."""
        if self._pid != os.getpid():
            return
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(CLOSE_SECONDS)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting: dict[str, Ring] = {}
        self._thread: threading.Thread | None = None
        self._closing = False

    def _start(self) -> threading.Thread | None:
        thread = threading.Thread(target=self._publish_for_ever, name="backhaul-bell", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending, or there are too many threads
            self.failures += 1
            return None
        return thread

    def _publish_for_ever(self) -> None:
        app: Celery | None = None
        while self._wait():
            try:
                app = app or self._app()
                publish(app, self._take())
                time.sleep(APART_SECONDS)
            except Exception as error:  # whatever it is, the app must not notice
                app = self._keep_quiet(app, error)
        if app is not None:
            app.close()

    def _wait(self) -> bool:
        """Until there is something to publish. False: the bell is closed, and all is said."""
        with self._changed:
            while not self._waiting:
                if self._closing:
                    return False
                self._changed.wait()
        time.sleep(GATHER_SECONDS)
        return True

    def _take(self) -> list[Ring]:
        with self._changed:
            rings, self._waiting = list(self._waiting.values()), {}
        return rings

    def _keep_quiet(self, app: Celery | None, error: Exception) -> None:
        self.failures += 1
        emit("bell.failed", error=type(error).__name__)
        if app is not None:
            with contextlib.suppress(Exception):
                app.close()
        with self._changed:
            self._waiting.clear()
            self._changed.wait_for(lambda: self._closing, QUIET_SECONDS)
            self._waiting.clear()

    def _app(self) -> Celery:
        from config.celery import make_app  # half a second of imports, which the host's start need not wait for

        return make_app(self._settings, current=False)
