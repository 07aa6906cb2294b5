"""Work as a test has it: the real ledger in a real database, and no broker, no worker and no time that passes.

    with Harness() as harness:
        id = harness.work.enqueue(OneTimeWork(report, constraints=Constraints(network="connected"))).ids[0]
        harness.run_due()
        harness.assert_state(id, "ENQUEUED")
        harness.set(connected=True)
        harness.run_due()
        harness.assert_state(id, "SUCCEEDED")

Constrained work does not run until a test says that its constraints hold: every condition is off at first, and no label
holds. Work runs in the thread that calls `run_due`, in the order in which workers would be told of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, Engine

from backhaul.bell import Queue, SilentBell
from backhaul.clock import Clock
from backhaul.database import Database, open_database
from backhaul.errors import Misused, Unknown
from backhaul.migrations import upgrade_replica
from backhaul.testing.asserting import Assertions
from backhaul.testing.clock import MovedClock
from backhaul.testing.running import Ran, run_here
from backhaul.work import changes, conditions, ledger
from backhaul.work.adjusting import words
from backhaul.work.conditions import IMPLIED, KNOWN, Condition, is_label
from backhaul.work.constraints import TableTrigger, Trigger
from backhaul.work.context import Conditions
from backhaul.work.functions import OURS, all_registered
from backhaul.work.looking import look_patiently
from backhaul.work.placing import judge
from backhaul.work.request import CELERY_TASK
from backhaul.work.roster import QueueState, Worker
from backhaul.work.row import Work
from backhaul.work.signatures import look
from backhaul.work.why import why
from backhaul.work.works import Works

MOST_RUNS = 10_000  # of one `run_due`: more is work that enqueues itself for ever


class Harness(Assertions):
    """engine: the app's own; without one, a fresh SQLite file. clock: one of the caller's; without one, a clock that
    `harness.clock.advance` moves. queues: as backhaul.toml declares them; without, one that serves every condition,
    and these labels. tasks: what stands for the host's plain Celery tasks, by their names: anything that can be called.

    work: what `Backhaul(engine).work` is. ran: all that has run, in order.
    """

    def __init__(
        self,
        engine: Engine | None = None,
        *,
        clock: Clock | None = None,
        queues: Sequence[Queue] | None = None,
        labels: Iterable[str] = (),
        tasks: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self._folder = None if engine is not None else tempfile.TemporaryDirectory(prefix="backhaul-")
        self.database = _opened(engine, self._folder.name if self._folder else "")
        upgrade_replica(self.database)
        self._given_clock = clock
        self._moved_clock = MovedClock()
        declared = _labels(labels)
        self.queues = [Queue(name="test", tags=frozenset(KNOWN) | declared)] if queues is None else list(queues)
        self._demanding = [Queue(name="test")] if queues is None else self.queues  # the one of ours demands nothing
        self.ran: list[Ran] = []
        self.work = Works(self.database, _Bell(self.queues), self._now_clock, after_commit=lambda *_: True)
        self._labels: frozenset[str] = frozenset()
        self._met: set[str] = set()
        self._tasks = dict(tasks or {})

    def __enter__(self) -> Harness:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.database.close()
        if self._folder is not None:
            self._folder.cleanup()

    # time and constraints

    @property
    def clock(self) -> MovedClock:
        """Raises Misused when the harness was given a clock of the caller's."""
        if self._given_clock is not None:
            raise Misused("this harness goes by the clock that it was given", hint="move that one")
        return self._moved_clock

    def set(self, **values: bool) -> None:
        """Say of conditions whether they hold, from now on: `harness.set(connected=True, charging=False)`."""
        with self.database.writing() as connection:
            for name, value in values.items():
                conditions.set_condition(connection, name, value, now=self.now)

    def set_labels(self, *labels: str) -> None:
        """Say which labels the machine has, from now on; no others. Raises Misused."""
        self._labels = _labels(labels)

    def set_all_constraints_met(self, work_id: str) -> None:
        """Let the next run of this work begin, and go on, whatever the conditions are; one that waits for a change of
        data need not wait. One run uses it up. Raises Unknown."""
        work = self._get(work_id)
        self._met.add(work_id)
        if work.state == "ENQUEUED" and work.due_at >= ledger.NEVER:
            self._wake(work_id)

    def set_initial_delay_met(self, work_id: str) -> None:
        """Have the initial delay, and `begin_at`, passed. Raises Unknown, and Misused for work that does not wait for
        one, and where the clock is the caller's."""
        self._delay_met(work_id, "initial delay")

    def set_period_delay_met(self, work_id: str) -> None:
        """Have the period passed: the next run is due now. Raises Unknown, and Misused for one-time work, for work
        that does not wait for its period, and where the clock is the caller's."""
        if not self._get(work_id).periodic:
            raise Misused(f"the work {work_id!r} is one-time work: it has no period", hint="set_initial_delay_met")
        self._delay_met(work_id, "period")

    def changed(self, trigger: Trigger) -> None:
        """Say that a table or a file has changed, for the work that waits for it. Files that do change, and tables
        that are synced, are seen anyway."""
        with self.database.writing() as connection:
            if isinstance(trigger, TableTrigger):
                ledger.touch_tables(connection, [], self.now, by_sync=[trigger.table])
            else:
                ledger.touch_files(connection, {trigger: "as it was"}, self.now)
                ledger.touch_files(connection, {trigger: look(trigger)}, self.now)

    # running

    def run_due(self) -> list[Ran]:
        """Run everything that is due and whose constraints hold, and what becomes due by that, until nothing is.
        Returns what ran, in order. Work that is stopped, and stays due, runs once."""
        ran: list[Ran] = []
        done_with: set[str] = set()
        while ready := self._ready(done_with):
            for work in ready:
                one = self._run(work)
                if one.kind in ("stopped", "not-claimed"):
                    done_with.add(work.id)
                if one.kind != "not-claimed":
                    ran.append(one)
            if len(ran) > MOST_RUNS:
                raise Misused(f"{MOST_RUNS} runs, and more are due", hint="does the work enqueue itself for ever?")
        return ran

    def run(self, work_id: str) -> Work:
        """Run this one now; returns it as it is then. Raises Unknown; Misused, with why, when it is not due or its
        constraints do not hold."""
        self._get(work_id)
        for work in self.due():
            if work.id == work_id:
                self._run(work)
                return self._get(work_id)
        raise Misused(f"the work {work_id!r} cannot run now: {self.why(work_id)}", hint="move the clock, or set(...)")

    def due(self) -> list[Work]:
        """What `run_due` would begin with."""
        return self._ready(())

    def why(self, work_id: str) -> str:
        """As `backhaul work why` would say it, with one worker that serves every queue. Raises Unknown."""
        now, states = self.now, tuple(QueueState(name=queue.name, open=True) for queue in self.queues)
        workers = [Worker(name="harness", pid=0, started_at=now, seen_at=now, queues=states)]
        with self.database.reading() as connection:
            held, labels = self._conditions(connection, now)
            return why(connection, work_id, held, labels, self._demanding, workers, now, most_losses=ledger.MOST_LOSSES)

    # inside

    @property
    def now(self) -> int:
        """Milliseconds since 1970."""
        return self._now_clock.now()

    @property
    def _now_clock(self) -> Clock:
        return self._given_clock or self._moved_clock

    def _conditions(self, connection: Connection, now: int) -> tuple[Mapping[str, Condition], frozenset[str]]:
        off = dict.fromkeys(KNOWN.keys() - set(IMPLIED), False)
        return conditions.effective(off, {}, conditions.overrides(connection, now)), self._labels

    def _ready(self, but: Collection[str]) -> list[Work]:
        now = self.now
        changes.look_at_tables(self.database, now)
        changes.look_at_files(self.database, now, look=look_patiently)
        with self.database.writing() as connection:
            ledger.recover(connection, now)
            ledger.expire(connection, now)
            due = ledger.due(connection, now, ring_again_ms=0, limit=MOST_RUNS)
            held, labels = self._conditions(connection, now)
        wanted = [work for work in due if work.id not in but and _is_hosts(work)]
        return [work for work in wanted if work.id in self._met or judge(work.requires, held, labels).open]

    def _run(self, work: Work) -> Ran:
        met = work.id in self._met
        self._met.discard(work.id)

        all_met = {name: Condition(name=name, value=True) for name in KNOWN}, frozenset(work.requires)
        in_force: Conditions = (lambda *_: all_met) if met else self._conditions
        one = run_here(self.database, work, conditions=in_force, clock=self._now_clock, tasks=self._tasks)
        if one.kind != "not-claimed":
            self.ran.append(one)
        return one

    def _get(self, work_id: str) -> Work:
        found = self.work.get(work_id)
        if found is None:
            raise Unknown(f"there is no work {work_id!r}", hint="the receipt of `enqueue` names what it kept")
        return found

    def _delay_met(self, work_id: str, what: str) -> None:
        work = self._get(work_id)
        if self._given_clock is not None:
            raise Misused("this harness goes by the clock that it was given", hint="move that one, to when it is due")
        if work.state != "ENQUEUED" or work.attempt or work.due_at >= ledger.NEVER:
            raise Misused(f"the work {work_id!r} does not wait for its {what}: {self.why(work_id)}", hint="run_due()")
        self._wake(work_id)

    def _wake(self, work_id: str) -> None:
        with self.database.writing() as connection:
            ledger.wake(connection, work_id, self.now)


class _Bell(SilentBell):
    """There is nobody to ring for."""

    def workers(self, *, importing: bool) -> frozenset[str]:  # noqa: ARG002 - a test has imported what it tests
        return frozenset(one.name for one in all_registered())


def _opened(engine: Engine | None, folder: str) -> Database:
    if engine is None:
        return open_database(f"sqlite:///{Path(folder) / 'work.db'}")
    if engine.dialect.name == "sqlite" and engine.url.database in (None, "", ":memory:"):
        raise Misused("a database in memory cannot be shared", hint="a file, as in sqlite:///app.db; or no engine")
    return open_database(engine.url)


def _labels(said: Iterable[str]) -> frozenset[str]:
    for label in words("labels", said):
        if not is_label(label):
            raise Misused(f"{label!r} is no label", hint="a label has a colon, as in region:eu; conditions: set(...)")
    return frozenset(said)


def _is_hosts(work: Work) -> bool:
    return work.task == CELERY_TASK or not work.task.startswith(OURS)
