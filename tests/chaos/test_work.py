"""A hundred periodic and a thousand one-time works under two beats and three workers, each of which is killed at random
with -9 (whole, its main process alone, or one of its children), a broker that is flushed, and a database that is locked
now and then: every run accounted for, none twice at the same time, none lost.

The functions write a journal, which knows nothing of the ledger: that a run began, and that it ended, in which process
of which group, by the machine's monotonic clock. The test adds when it killed which of these. A run without an end, and
a run that came after another one of the same work, must be explained by a kill.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from threading import Thread
from types import MappingProxyType

import pytest

from backhaul.bell import SilentBell
from backhaul.clock import SystemClock
from backhaul.work import OneTimeWork, PeriodicWork
from backhaul.work.works import Works
from config.queues import declared
from tests.commands import Process
from tests.crew import Crew, kill
from tests.waiting import eventually

STORM_SECONDS = 120
ONE_TIME, PERIODIC = 1_000, 100
EVERY = timedelta(seconds=5)
FUNCTIONS = """
import os
import pathlib
import random
import time
from backhaul.work import worker

JOURNAL = os.open(pathlib.Path(__file__).with_name("journal"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(what, context):
    work = context.work
    line = f"{what} {work.id} {work.fence} {os.getpgrp()} {os.getpid()} {time.monotonic_ns()}\\n"
    os.write(JOURNAL, line.encode())  # one write: lines of several processes do not mix

@worker("once")
def once(context):
    note("begun", context)
    context.wait(random.random() * 0.2)
    note("ended", context)

@worker("again")
def again(context):
    note("begun", context)
    context.wait(random.random() * 0.2)
    note("ended", context)
"""


Kills = Mapping[int, Sequence[int]]


@dataclass(kw_only=True)
class Run:
    """Of one work, under one fence. process: that ran it, of which group. Times: nanoseconds."""

    work: str
    fence: int
    group: int
    process: int
    begun: int
    ended: int | None = None

    def killed(self, kills: Kills) -> int | None:
        """When its process was killed, or the main process of that, which leaves it alone in the world."""
        times = [*kills.get(self.group, ()), *kills.get(self.process, ())]
        return min((at for at in times if at > self.begun), default=None)


class Storm:
    """kills: when which process was killed, or which group, by its number."""

    def __init__(self, crew: Crew, seed: int) -> None:
        self.crew = crew
        self.kills: dict[int, list[int]] = defaultdict(list)
        self.done: Counter[str] = Counter()
        self._orphaned: list[Process] = []
        self._random = Random(seed)
        self._started = 0
        self._running = {
            **{f"worker {number}": self._worker() for number in range(3)},
            **{f"beat {number}": self._beat() for number in range(2)},
        }

    def rage(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            time.sleep(self._random.uniform(0.5, 3))  # the pace of the storm
            what = self._random.choices(list(self.BLOWS), list(self.BLOWS.values()))[0]
            self.done[what] += 1
            getattr(self, what)()

    BLOWS = MappingProxyType({"flush": 3, "lock": 2, "kill_all": 4, "kill_main": 2, "kill_child": 4})

    def flush(self) -> None:
        self.crew.flush()

    def lock(self) -> None:
        """For as long as an app may take, beside whatever comes next."""
        holding = self._random.uniform(0.5, 2)
        Thread(target=lock, args=(self.crew, holding), daemon=True).start()

    def kill_all(self) -> None:
        name = self._random.choice(sorted(self._running))
        process = self._running[name]
        kill(process)
        self._killed(process.pid)
        self._running[name] = self._worker() if name.startswith("worker") else self._beat()

    def kill_main(self) -> None:
        """What its children have in hand, they end."""
        name = self._random.choice([one for one in sorted(self._running) if one.startswith("worker")])
        process = self._running[name]
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        self._killed(process.pid)
        self._orphaned.append(process)
        self._running[name] = self._worker()

    def kill_child(self) -> None:
        name = self._random.choice([one for one in sorted(self._running) if one.startswith("worker")])
        children = children_of(self._running[name].pid)
        if children:
            child = self._random.choice(children)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            self._killed(child)

    def _killed(self, number: int) -> None:
        self.kills[number].append(time.monotonic_ns())

    def lie_down(self) -> None:
        """Everything ends by itself, so that what the ledger and the journal say is of one moment."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.wait(60)
        for process in self._orphaned:
            kill(process)  # what is left of its group

    def _worker(self) -> Process:
        self._started += 1
        return self.crew.start_worker(f"w{self._started}", "-c", "2")

    def _beat(self) -> Process:
        self._started += 1
        return self.crew.beat(f"b{self._started}")


def lock(crew: Crew, seconds: float) -> None:
    with crew.database.writing():
        time.sleep(seconds)  # how long another program holds the database: the scene, not a wait


def children_of(process: int) -> list[int]:
    """Without the broker, if it has one."""
    try:
        found = [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
        return [child for child in found if b"redis" not in Path(f"/proc/{child}/cmdline").read_bytes()]
    except OSError:
        return []


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    made = Crew(tmp_path / "home", functions=FUNCTIONS)
    yield made
    made.end()


@pytest.mark.chaos
@pytest.mark.parametrize("seed", [1])
def test_every_run_is_accounted_for_none_doubled_none_lost(crew: Crew, seed: int) -> None:
    works = Works(crew.database, SilentBell(declared(crew.settings)), SystemClock(), lambda *_: False)
    once = [OneTimeWork("once") for _ in range(ONE_TIME)]
    again = [PeriodicWork("again", every=EVERY, least_interval=EVERY) for _ in range(PERIODIC)]
    works.enqueue(once[: ONE_TIME // 2])
    for work in again:
        works.enqueue_unique_periodic(work.id, "keep", work)
    storm = Storm(crew, seed)
    for part in range(5):
        storm.rage(STORM_SECONDS / 5)
        works.enqueue(once[ONE_TIME // 2 + part * ONE_TIME // 10 :][: ONE_TIME // 10])
    closed = {work.id: work.runs for work in works.query(ids=[one.id for one in again], limit=PERIODIC)}
    eventually(lambda: not works.query(ids=[one.id for one in once], states=["ENQUEUED", "RUNNING"], limit=1), 180)
    eventually(lambda: all(_runs(works, one.id) > closed[one.id] for one in again), 120, "each period comes again")
    storm.lie_down()
    by_work = journal(crew.home / "journal")
    print(f"{dict(storm.done)}, {sum(map(len, by_work.values()))} runs")
    assert set(storm.done) == set(Storm.BLOWS)
    assert len(storm.kills) > STORM_SECONDS / 10
    assert {work.state for work in works.query(ids=[one.id for one in once], limit=ONE_TIME)} == {"SUCCEEDED"}
    check_no_two_at_once(by_work, storm.kills)
    for one in once:
        check_explained(by_work[one.id], storm.kills)
    for one in again:
        finished = [run for run in by_work[one.id] if run.ended is not None]
        unsettled = may_be_unsettled(by_work[one.id], storm.kills)
        assert len(finished) - unsettled <= _runs(works, one.id) <= len(finished)


def _runs(works: Works, work_id: str) -> int:
    found = works.get(work_id)
    assert found is not None
    return found.runs


def journal(file: Path) -> Mapping[str, Sequence[Run]]:
    """The runs of each work, in the order in which they began."""
    runs: dict[tuple[str, str], Run] = {}
    for line in file.read_text().splitlines():
        what, work, fence, group, process, at = line.split()
        if what == "begun":
            assert (work, fence) not in runs, f"{work} began twice under the fence {fence}"
            runs[work, fence] = Run(work=work, fence=int(fence), group=int(group), process=int(process), begun=int(at))
        else:
            runs[work, fence].ended = int(at)
    by_work: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(runs.values(), key=lambda one: one.begun):
        by_work[run.work].append(run)
    return by_work


def check_no_two_at_once(by_work: Mapping[str, Sequence[Run]], kills: Kills) -> None:
    for runs in by_work.values():
        for one, next_one in pairwise(runs):
            over = one.ended if one.ended is not None else one.killed(kills)
            assert over is not None, f"{one} never ended, and nobody killed it"
            assert over <= next_one.begun, f"{one} and {next_one} at the same time"


def check_explained(runs: Sequence[Run], kills: Kills) -> None:
    """Of one-time work: every run but the last was killed before it was settled, and the last one ended."""
    assert runs
    assert runs[-1].ended is not None
    for one, next_one in pairwise(runs):
        killed = one.killed(kills)
        assert killed is not None, f"{next_one} after {one}, which nobody killed"
        assert killed < next_one.begun, f"{next_one} after {one}, which was killed at {killed}"


def may_be_unsettled(runs: Sequence[Run], kills: Kills) -> int:
    """Of periodic work: how many runs have ended, and their process was killed before the next one began."""
    return sum(
        one.ended is not None and (killed := one.killed(kills)) is not None and killed < after.begun
        for one, after in pairwise(runs)
    )
