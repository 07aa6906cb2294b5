"""The lookout of a worker: a thread that sees to what must go on whatever the consumer is busy with.

It wakes once a second, and at once when a probe has something to say or PostgreSQL's bell rings. It judges the queues
from what it remembers; asks the database for what was overridden and for what is to be pushed; says there, every five
seconds and whenever a queue or a condition flips, that the worker is alive, what it serves, and how the machine is; and
looks whether the broker answers.

A worker that runs nothing, and is told by the system when SQLite's file is written (notices.py), rests: it wakes for
that, once a second at most, and for what is due by the clock.

Nothing that can block keeps it from judging: on SQLite its own connection waits a fifth of a second for a lock and
tries again a second later; what goes over a network (PostgreSQL, ringing, mending the broker) is an errand of its own
(errand.py). When a queue opens, it rings for the work that waits there, so that nothing waits for Beat.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from celery import Celery
from celery.worker import state

from backhaul.clock import SystemClock
from backhaul.database import Database, on_server, sqlite_file
from backhaul.errors import BackhaulError, DatabaseBusy
from backhaul.remotes import traffic
from backhaul.remotes.traffic import Spent
from backhaul.telemetry import emit
from backhaul.work import roster
from backhaul.work.conditions import Condition, overrides
from backhaul.work.ledger import Work
from backhaul.work.reading import Answer, Readings
from backhaul.work.roster import QueueState
from tasks import ending
from workers.database import WorkerDatabase
from workers.errand import Errand, told
from workers.judge import Judge
from workers.listener import Listener
from workers.notices import Notices
from workers.probes.machine import Machine
from workers.replica import replica_of
from workers.ringing import ring_and_mark, ring_due
from workers.watcher import Watch

Saying = tuple[Mapping[str, bool], Mapping[str, tuple[bool, str, Answer | None]]]

LOOK_SECONDS = 1.0  # between two looks that nobody has woken it for
MINUTE_MS = 60_000
BEAT_MS = 5_000
ANSWER_MS = 15_000  # of a broker that a resting consumer has: it would tell of a broken connection
MOMENTS = 10  # that a commit may take, after its writing was said; else it is looked for a second later
PATIENCE_MS = 200  # for a lock of SQLite: three of them are less than a second
SILENT_SECONDS = 30.0  # PostgreSQL, while it is asked for what takes milliseconds
LEAVING_TRIES = 5
LEAVING_SECONDS = 3.0  # for PostgreSQL, which may say nothing


class Lookout:
    def __init__(
        self,
        app: Celery,
        *,
        name: str,
        served: Sequence[str],
        concurrency: int | None = None,
        processes: Callable[[], Sequence[int] | None] = lambda: None,
    ) -> None:
        self.served = served
        self.judged: Callable[[], None] = lambda: None  # what the gate does about it; called by any thread
        self.consuming = False  # as long as the gate says so; the broker's end is noticed there
        self.seconds = 0.0  # of processor time, that this thread has spent
        self._app = app
        self._name = name
        self._concurrency = concurrency
        self._processes = processes
        self._replica = replica_of(app)
        self._settings = self._replica.settings
        self._clock = SystemClock()
        self._started_at = self._clock.now()
        self._machine = Machine(self._settings, self._clock)
        self.readings: Callable[[], Readings] = self._machine.readings  # what the probes say
        url = self._settings.database_url
        self._database = WorkerDatabase(url, patience_ms=PATIENCE_MS)
        self._on_server = on_server(url)
        file = sqlite_file(url)
        self._notices = None if file is None else Notices(file)
        self._listener = Listener(url if self._on_server else None, self._notices)
        self._watch = Watch()
        self._judge = Judge(self._settings, served, lambda: self.readings())
        self._judging = threading.Lock()
        self._said: Mapping[str, Condition] | None = None  # what was overridden; None: never read
        self._spent: Spent | None = None  # over metered links, where that is limited
        self._heard_at = 0
        self._told: Saying | None = None
        self._beat_at = 0
        self._told_of_files = False  # what is written from now on is said, and all that was is read
        self._answered_at = 0  # by the broker
        self._opened: set[str] = set()
        self._push: Work | None = None
        self._asking = Errand("database", self._see_to_database)
        self._ringing = Errand("ringing", self._ring)
        self._mending = Errand("broker", self.mend_broker)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_for_ever, name="backhaul-lookout", daemon=True)

    @property
    def states(self) -> dict[str, QueueState]:
        return self._judge.states

    def start(self) -> None:
        """Look once, here and now, then every second, in the thread."""
        self._machine.start(self.wake)
        self._guarded(self._see_to_database)
        self._opened.clear()  # what is open from the beginning is Beat's to ring for
        self._thread.start()

    def wake(self) -> None:
        """Look now: from any thread, and never blocking. For probes, when the machine has changed."""
        self._listener.wake()

    def end(self) -> None:
        """The worker ends: what it runs is asked to checkpoint, and it is no longer on the roster."""
        ending.begin()
        self._ended.set()
        self._machine.end()
        self._listener.wake()
        if self._thread.is_alive():
            self._thread.join(2)
        for errand in (self._asking, self._ringing, self._mending):
            errand.end(1)
        self._listener.close()
        leaving = threading.Thread(target=self._leave, name="backhaul-leaving", daemon=True)
        leaving.start()
        leaving.join(LEAVING_SECONDS if self._on_server else None)  # SQLite lets nobody wait for ever
        self._database.close()

    def mend_broker(self) -> None:
        if not self._ended.is_set():
            try:
                self._replica.ensure_broker()
            except BackhaulError as error:
                emit("broker.lost", error=str(error))

    def _leave(self) -> None:
        for _ in range(LEAVING_TRIES):
            try:
                with self._database.using() as database, database.writing() as connection:
                    return roster.leave(connection, self._name, self._settings.node)
            except DatabaseBusy:
                pass  # the runs end in their time, and whoever reads the roster sees that it has not been heard of
        return None

    def _look_for_ever(self) -> None:
        looked_at = time.monotonic()
        while not self._ended.is_set():
            self._sleep(looked_at)
            looked_at = time.monotonic()
            if not self._ended.is_set():
                self._guarded(self._look)
            self.seconds = time.thread_time()

    def _sleep(self, looked_at: float) -> None:
        pause = self._pause() if self._told_of_files and self._rests() else LOOK_SECONDS
        files = pause > LOOK_SECONDS
        heard = self._listener.wait(max(0.0, looked_at + pause - time.monotonic()), to_files=files)
        early = looked_at + LOOK_SECONDS - time.monotonic()
        if heard and files and early > 0:
            self._listener.wait(early)

    def _rests(self) -> bool:
        """Nothing runs here or waits to, the consumer has its broker, and no probe waits to be believed."""
        return self.consuming and not state.reserved_requests and not self._machine.hurries

    def _pause(self) -> float:
        """Seconds to what is due next by the clock."""
        now = self._clock.now()
        due = [self._beat_at + BEAT_MS]
        due += [one.expires_at for one in (self._said or {}).values() if one.expires_at and one.expires_at > now]
        if self._settings.quiet.hours or self._settings.budget.limits:  # which begin and end with a minute
            due.append(now - now % MINUTE_MS + MINUTE_MS)
        return max(LOOK_SECONDS, min(BEAT_MS, min(due) - now) / 1000)

    def _guarded(self, look: Callable[[], None]) -> None:
        try:
            look()
        except Exception as error:  # the thread must go on
            emit("errand.failed", errand="lookout", error=told(error))

    def _look(self) -> None:
        if state.should_stop is not None:  # by remote control: a signal has said so itself
            ending.begin()  # a pool without processes of its own ends its run before it ends us
        self._machine.look(self._clock.now())
        self._judge_anew()
        if self._on_server:
            self._database.cut_if_silent(SILENT_SECONDS)
            self._replica.database.cut_if_silent(SILENT_SECONDS)
            self._asking.ask()
        else:
            self._see_to_database()
        now = self._clock.now()
        if not (self._rests() and 0 <= now - self._answered_at < ANSWER_MS):
            self._answered_at = now
            if not self._replica.broker_answers():
                self._mending.ask()

    def _judge_anew(self) -> None:
        """From memory alone. By the lookout's own thread, and by the errand that has asked the database."""
        with self._judging:
            if self._said is None:
                return
            flipped = self._judge.look(self._said, self._clock.now(), self._spent)
            self._opened |= {queue.name for queue in flipped.opened}
        self.judged()

    def _see_to_database(self) -> None:
        now, self._told_of_files = self._clock.now(), False
        said = self._notices is not None and self._notices.take()
        try:
            with self._database.using() as database:
                moved = any(self._watch.moved(database) for _ in range(MOMENTS if said else 1))
                if moved or not 0 <= now - self._heard_at < BEAT_MS:  # or the clock was set
                    self._hear(database, now)
                    self._judge_anew()
                wrote = self._beat(database, now, awake=moved and self._rests())
                self._push = self._watch.push(database, now) if moved else None
                if moved or not said:  # or it is still to be committed
                    self._told_of_files = self._has_read_all(database, wrote=wrote or moved)
        except DatabaseBusy:
            self._watch.forget()  # all stays as it was, until the next look
        if self._opened or self._push is not None:
            self._ringing.ask()
        self._listener.listen()

    def _has_read_all(self, database: Database, *, wrote: bool) -> bool:
        """Whether what is written from now on will be said, and all before that has been read."""
        if self._notices is None or not self._notices.watch():
            return False
        if self._notices.take() and not wrote:
            return False
        if self._watch.moved(database):
            self._watch.forget()
            return False
        return True

    def _hear(self, database: Database, now: int) -> None:
        with database.reading() as connection:
            if self._settings.budget.limits:
                self._spent = traffic.spent(connection, self._settings.node, traffic.local_day(now))
            self._said, self._heard_at = overrides(connection, now, self._settings.node), now

    def _beat(self, database: Database, now: int, *, awake: bool) -> bool:
        """Whether it wrote. awake: for another reason, and this need not be one of its own soon."""
        saying = _saying(self.states, self._judge.conditions)
        if saying == self._told and 0 <= now - self._beat_at < (BEAT_MS // 2 if awake else BEAT_MS):
            return False
        with database.writing(lasting=False) as connection:
            roster.beat(
                connection,
                node=self._settings.node,
                name=self._name,
                pid=os.getpid(),
                started_at=self._started_at,
                queues=list(self.states.values()),
                labels=self._settings.labels,
                readings=self.readings(),
                conditions=self._judge.conditions,
                concurrency=self._concurrency,
                processes=self._processes(),
                now=now,
            )
        self._beat_at, self._told = now, saying
        return True

    def _ring(self) -> None:
        with self._judging:
            opened, self._opened = self._opened, set()
            push, self._push = self._push, None
        try:
            if opened:
                ring_due(
                    self._app, self._replica.database, now=self._clock.now(), ring_again_ms=0, queues=sorted(opened)
                )
            if push is not None:
                ring_and_mark(self._app, self._replica.database, [push], self._clock.now())
        except Exception as error:  # a hint, and Beat has it too
            self._watch.forget()
            emit("bell.failed", error=type(error).__name__)


def _saying(states: Mapping[str, QueueState], conditions: Mapping[str, Condition]) -> Saying:
    """What others should hear of at once, when it changes."""
    queues = {name: one.open for name, one in states.items()}
    return queues, {name: (one.value, one.source, one.answer) for name, one in conditions.items()}
