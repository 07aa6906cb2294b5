"""The bell that Celery's workers hear: a message that names a work and its generation.

The app that rings has just committed and must not wait, so ringing is putting a note into a dict. One daemon thread
takes the notes out and publishes them. It is a hint: notes of one run become one message, a broker that does not
answer is left alone for a while, and what could not be said is dropped (Beat and the watcher find the work anyway).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from backhaul import bell
from backhaul.bell import Ring
from backhaul.database import Database
from backhaul.remotes.base import Remote
from backhaul.remotes.endpoint import Endpoint
from backhaul.remotes.http import HttpRemote
from backhaul.replica.enrol import renew_if_harmless
from backhaul.telemetry import emit
from backhaul.work.functions import all_registered
from config.credentials import keeper, read_identity
from config.loading import load
from config.machine import node_of
from config.media import media_rules
from config.queues import declared, upload_requires
from config.settings import Settings

if TYPE_CHECKING:
    from celery import Celery
    from kombu.messaging import Producer

GATHER_SECONDS = 0.005  # one transaction often rings for several works
APART_SECONDS = 0.020
QUIET_SECONDS = 1.0  # after a failure
SAY_AGAIN_SECONDS = 60.0  # of one run; Beat needs seconds to find that a message was lost
CLOSE_SECONDS = 1.0
MOST_WAITING = 1_000
ONE_TRY = {"max_retries": 0}  # of connecting: a broker that is not there is no reason to keep a command from ending

Look = Callable[[], Ring | None]


def open_bell(home: Path) -> CeleryBell:
    """The bell of the replica in this folder. It never starts a broker."""
    return CeleryBell(load(home))


def publish(app: Celery, rings: Iterable[Ring]) -> int:
    """Send a message for each; returns how many. Raises what Celery, Kombu and the broker's client raise."""
    with app.producer_pool.acquire(block=True, timeout=QUIET_SECONDS) as producer:
        return _publish(app, producer, rings)


class CeleryBell:
    """Rings without ever raising or blocking. failures: how often the broker could not be told."""

    def __init__(self, settings: Settings) -> None:
        self.queues: Sequence[bell.Queue] = declared(settings)
        self.upload_requires = upload_requires(settings)
        self.expedited_runs = settings.work.expedited_runs
        self.node = node_of(settings)
        self.media = media_rules(settings)
        self.failures = 0
        self._settings = settings
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting: dict[str, Look] = {}
        self._thread: threading.Thread | None = None
        self._said: dict[str, float] = {}  # task id: when
        self._app: Celery | None = None
        self._producer: Producer | None = None
        self._closing = False
        self._imported = False

    def workers(self, *, importing: bool) -> frozenset[str] | None:
        """A module that this process cannot import is the workers' affair: then nothing is known here."""
        if not self._imported:
            if not importing:
                return None
            if str(self._settings.home) not in sys.path:
                sys.path.append(str(self._settings.home))  # where the workers look, too
            try:
                for module in self._settings.work.modules:
                    import_module(module)
            except Exception as error:
                emit("work.modules_unknown", error=type(error).__name__)
                return None
            self._imported = True
        return frozenset(name for one in all_registered() for name in (one.name, *one.formerly))

    def ring(self, ring: Ring) -> None:
        self._note(ring.task_id, lambda: ring)

    def ring_for(self, name: str, look: Look) -> None:
        self._note(name, look)

    def _note(self, name: str, look: Look) -> None:
        if self._pid != os.getpid():
            self._begin_in_the_child()
        with self._changed:
            if len(self._waiting) < MOST_WAITING:
                self._waiting[name] = look
            if self._thread is None:
                self._thread = self._start()
            self._changed.notify()

    def remote(self, endpoint: Endpoint | None = None) -> Remote:
        replica = self._settings.replica
        identity = read_identity(self._settings.state)
        plain = replica.allow_plain_http
        remote = HttpRemote(replica.remote, identity.token, allow_plain=plain, endpoint=endpoint)
        remote.belong(identity.replica, keeper(self._settings.state))
        return remote

    def renew(self, database: Database, remote: Remote) -> bool:
        return renew_if_harmless(database, remote, rules=self._settings.rules)

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

    def _begin_in_the_child(self) -> None:
        """A forked child has neither the thread nor a lock that can be trusted."""
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting, self._thread, self._producer = {}, None, None

    def _start(self) -> threading.Thread | None:
        thread = threading.Thread(target=self._publish_for_ever, name="backhaul-bell", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending, or there are too many threads
            self.failures += 1
            return None
        return thread

    def _publish_for_ever(self) -> None:
        while self._wait():
            try:
                rings = self._not_said_yet(self._take())
                if rings:
                    _publish(*self._opened(), rings)
                    self._said |= dict.fromkeys((ring.task_id for ring in rings), time.monotonic())
                time.sleep(APART_SECONDS)
            except Exception as error:  # whatever it is, the app must not notice
                self._keep_quiet(error)
        self._let_go()

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
            looks, self._waiting = list(self._waiting.values()), {}
        return [ring for ring in map(_looked, looks) if ring is not None]

    def _not_said_yet(self, rings: list[Ring]) -> list[Ring]:
        """Once for each run: while its message waits, say in a closed queue, more of them would only pile up."""
        long_ago = time.monotonic() - SAY_AGAIN_SECONDS
        self._said = {task_id: at for task_id, at in self._said.items() if at > long_ago}
        return [ring for ring in rings if ring.task_id not in self._said]

    def _keep_quiet(self, error: Exception) -> None:
        self.failures += 1
        emit("bell.failed", error=type(error).__name__)
        self._let_go()
        with self._changed:
            self._changed.wait_for(lambda: self._closing, QUIET_SECONDS)
            self._waiting.clear()

    def _opened(self) -> tuple[Celery, Producer]:
        if self._app is None:
            from config.celery import make_app  # half a second of imports, which the host's start need not wait for

            self._app = make_app(self._settings, current=False)
        if self._producer is None:
            # Not from Celery's pool: pools are shared by all apps of a process that have the same broker.
            connection = self._app.connection_for_write(transport_options=ONE_TRY)
            self._producer = self._app.amqp.Producer(connection, auto_declare=False)
        return self._app, self._producer

    def _let_go(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(Exception):
                producer.connection.close()


def _publish(app: Celery, producer: Producer, rings: Iterable[Ring]) -> int:
    sent = 0
    for ring in rings:
        app.send_task(
            ring.task,
            args=[ring.work_id, ring.generation],
            task_id=ring.task_id,
            shadow=ring.shadow,
            queue=ring.queue,
            producer=producer,
            ignore_result=True,
            add_to_parent=False,
        )
        sent += 1
    return sent


def _looked(look: Look) -> Ring | None:
    try:
        return look()
    except Exception as error:  # the database is busy, or gone: nothing that the broker should be spared for
        emit("bell.failed", error=type(error).__name__)
        return None
