"""The lookout of a worker: a thread that sees to what must go on whatever the consumer is busy with.

Every half second it judges the queues and looks after the embedded broker; every five seconds, and whenever a queue
flips, it says in the database that the worker is alive and what it serves. When a queue opens, it rings for the work
that waits there, so that nothing waits for Beat.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from celery import Celery
from celery.worker import state

from backhaul.clock import SystemClock
from backhaul.errors import BackhaulError, DatabaseBusy
from backhaul.telemetry import emit
from backhaul.work import ledger, roster
from backhaul.work.roster import QueueState
from workers.judge import Flipped, Judge
from workers.replica import replica_of
from workers.ringing import ring_due

LOOK_SECONDS = 0.5
BEAT_MS = 5_000


class Lookout:
    def __init__(self, app: Celery, *, name: str, served: Sequence[str]) -> None:
        self.served = served
        self._app = app
        self._name = name
        self._replica = replica_of(app)
        self._judge = Judge(self._replica.settings, served)
        self._clock = SystemClock()
        self._beat_at = 0
        self._drained = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_for_ever, name="backhaul-lookout", daemon=True)

    @property
    def states(self) -> dict[str, QueueState]:
        return self._judge.states

    def start(self) -> None:
        """Look once, here and now, then every half second, in the thread."""
        self._look(first=True)
        self._thread.start()

    def end(self) -> None:
        """The worker ends: what it runs is asked to checkpoint, and it is no longer on the roster."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(2)
        try:
            self._drain()
            with self._replica.database.using() as database, database.writing() as connection:
                roster.leave(connection, self._name)
        except DatabaseBusy:
            pass  # the runs end in their time, and whoever reads the roster sees that it has not been heard of

    def mend_broker(self) -> None:
        if not self._ended.is_set():
            try:
                self._replica.ensure_broker()
            except BackhaulError as error:
                emit("broker.lost", error=str(error))

    def _look_for_ever(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self.mend_broker()
            self._look()

    def _look(self, *, first: bool = False) -> None:
        try:
            if state.should_stop is not None and not self._drained:
                self._drain()  # a pool without processes of its own ends its run before it ends us
            flipped = self._judge_anew()
            if flipped.opened and not first:
                self._ring_for(flipped.opened)
        except DatabaseBusy:
            pass  # all stays as it was, until the next look
        except Exception as error:  # the thread must go on, and what rings is only a hint
            emit("bell.failed", error=type(error).__name__)

    def _drain(self) -> None:
        with self._replica.database.using() as database, database.writing() as connection:
            for work in ledger.query(connection, states=["RUNNING"]):
                if work.worker == self._name:
                    ledger.request_stop(connection, work.id, "DEPLOY_DRAIN")
        self._drained = True

    def _judge_anew(self) -> Flipped:
        now = self._clock.now()
        with self._replica.database.using() as database:
            with database.reading() as connection:
                flipped = self._judge.look(connection, now)
            if flipped.opened or flipped.closed or now - self._beat_at >= BEAT_MS:
                with database.writing() as connection:
                    roster.beat(
                        connection, name=self._name, pid=os.getpid(), queues=list(self.states.values()), now=now
                    )
                self._beat_at = now
        return flipped

    def _ring_for(self, opened: Sequence[QueueState]) -> None:
        ring_due(
            self._app,
            self._replica.database,
            now=self._clock.now(),
            ring_again_ms=0,
            queues=[queue.name for queue in opened],
        )
