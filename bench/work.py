"""Work: what a row costs when it is made, what a run costs beside a bare Celery task, and what idling costs.

enqueue   10,000 works in one transaction, on SQLite, as a host makes them: built, checked, placed and stored.
run       one worker process of one child. In turns a bare Celery task that does nothing, and work that does nothing,
          one by one with the worker asleep in between, and twenty by twenty; the time is what Celery's own event says
          that the task took in the worker (`runtime`), so all that is ours lies in it: claim, conditions, the thread
          that watches, and the settling.
due       a ledger of a million finished and a hundred thousand waiting works, half of them due and rung for long ago in
          a queue that is closed, on SQLite and on PostgreSQL: what Beat asks and writes each second to ring for the one
          work that is due, and to know when the next one is; without the broker.
idle      Beat and a worker without anything to do, for a minute: processor time, and how often they woke (voluntary
          context switches of all their threads, by the kernel's own count). That counts more than timers: each answer
          that is waited for, and each lock that another one has just then; so it rises a little on a crowded machine.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy import text

from backhaul.bell import Queue, SilentBell
from backhaul.clock import SystemClock
from backhaul.database import Database, open_database
from backhaul.migrations import upgrade_replica
from backhaul.schema import work
from backhaul.work import OneTimeWork, ledger, roster
from backhaul.work.works import Works
from config.bell import publish
from config.queues import declared
from tests.crew import Crew, check_endings
from tests.services import postgresql
from tests.waiting import eventually
from workers import ringing

KINDS = ("sqlite", "postgresql")
WORKS = 10_000
ROUNDS = 5
RUNS = 200
BURST = 20
FINISHED, WAITING = 1_000_000, 100_000
IDLE_SECONDS = 60
FUNCTIONS = """
from celery import shared_task
from backhaul.work import worker

@worker("nothing")
def nothing(context):
    return None

@shared_task(name="bare")
def bare():
    return None
"""


def enqueued_per_second() -> list[float]:
    found = []
    with _database() as database:
        works = Works(database, SilentBell([Queue(name="work")]), SystemClock(), lambda *_: False)
        for _ in range(ROUNDS):
            began = time.perf_counter()
            works.enqueue([OneTimeWork("nothing", input={"number": number}) for number in range(WORKS)])
            found.append(WORKS / (time.perf_counter() - began))
    return found


def runs(together: int = 1) -> dict[str, list[float]]:
    """Milliseconds that each run took in the worker, bare and as work. together: how many of a kind are sent at once
    before the other kind's turn; of one the worker has slept each time, and a processor that has slept is slow."""
    found: dict[str, list[float]] = {"bare": [], "nothing": []}
    with tempfile.TemporaryDirectory(prefix="backhaul-bench-") as name:
        crew = Crew(Path(name) / "home", functions=FUNCTIONS)
        try:
            crew.worker(queues="sync")
            works = Works(crew.database, SilentBell(declared(crew.settings)), SystemClock(), lambda *_: False)
            with crew.events() as seen:
                for ended in range(0, 2 * RUNS, 2 * together):
                    for _ in range(together):
                        crew.app.send_task("bare", queue="sync")
                    _await(seen, ended + together)
                    ids = works.enqueue([OneTimeWork("nothing") for _ in range(together)]).ids
                    publish(crew.app, [row.ring for row in works.query(ids=ids)])
                    _await(seen, ended + 2 * together)
                names = {event["uuid"]: event["name"] for event in seen if event["type"] == "task-received"}
                for event in _runtimes(seen):
                    found[names[event["uuid"]]].append(event["runtime"] * 1000)
        finally:
            crew.end(now=True)
    return {name: figures[len(figures) // 10 :] for name, figures in found.items()}  # the first ones start from cold


def added(together: int = 1) -> float:
    """Milliseconds, of medians, that a run of work takes more than a bare task."""
    found = runs(together)
    return statistics.median(found["nothing"]) - statistics.median(found["bare"])


def dispatch(kind: str = "sqlite") -> list[float]:
    """Milliseconds of one look for what is due. (That it is by an index: tests/unit/work and tests/contract/work.)"""
    with _database(kind) as database:
        works = Works(database, SilentBell([Queue(name="work")]), SystemClock(), lambda *_: False)
        (like,) = works.enqueue(OneTimeWork("nothing")).ids
        _multiply(database, like)
        beat = _Beat(database)
        figures = []
        for _ in range(ROUNDS * 4):
            beat.is_heard()
            with database.writing() as connection:
                connection.execute(text("UPDATE backhaul_work SET rung_at = 0 WHERE id = :like"), {"like": like})
            began = time.perf_counter()
            rung = beat.look()
            figures.append((time.perf_counter() - began) * 1000)
            assert rung == [like]
        return figures


@dataclass
class _Beat:
    """What Beat says to the database when it rings; the broker takes all of it at once, and forgets it."""

    database: Database

    @contextmanager
    def using(self) -> Iterator[Database]:
        yield self.database

    def is_heard(self) -> None:
        """A worker lives, and the queue is open there."""
        with self.database.writing() as connection:
            queues = [roster.QueueState(name="work", open=True)]
            roster.beat(connection, name="one", pid=1, queues=queues, now=SystemClock().now())

    def look(self) -> list[str]:
        now, queues = SystemClock().now(), ["closed", "work"]
        silent = mock.patch.multiple(ringing, publish=mock.DEFAULT, waiting_messages=lambda *_: 0)
        with silent:
            own: Any = self
            rung = ringing.ring_due(None, own, now=now, ring_again_ms=ringing.RING_AGAIN_MS, queues=queues)
            with self.database.reading() as connection:
                ledger.next_due_at(connection, now, queues=queues)
        return [work.id for work in rung]


def _multiply(database: Database, like: str) -> None:
    """Rows like this one: finished ones, ones that wait for tomorrow, and ones that wait in a closed queue."""
    names = work.columns.keys()
    for of, count, values in (
        ("finished", FINISHED, {"state": "'SUCCEEDED'", "finished_at": "created_at"}),
        ("later", WAITING // 2, {"due_at": "due_at + 86400000 + value"}),
        ("closed", WAITING // 2, {"queue": "'closed'", "rung_at": "due_at - 86400000 + value"}),
    ):
        said = {"id": f"'{of}' || value", **values}
        picked = ", ".join(said.get(name, name) for name in names)
        numbers = "WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < :count)"
        into = f"INSERT INTO backhaul_work ({', '.join(names)})"
        with database.writing() as connection:
            statement = f"{numbers} {into} SELECT {picked} FROM backhaul_work, n WHERE id = :like"
            connection.execute(text(statement), {"count": count, "like": like})
    if not database.sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE backhaul_work")


def idle() -> dict[str, tuple[float, float]]:
    """Of Beat and of a worker: the share of a core, and wakings a second."""
    with tempfile.TemporaryDirectory(prefix="backhaul-bench-") as name:
        crew = Crew(Path(name) / "home", functions=FUNCTIONS)
        try:
            crew.broker.ensure()  # or it would be the worker's child, and counted with it
            processes = {"worker": crew.worker(), "beat": crew.beat()}
            time.sleep(5)  # until what begins has begun
            before = {who: _spent(process.pid) for who, process in processes.items()}
            time.sleep(IDLE_SECONDS)
            after = {who: _spent(process.pid) for who, process in processes.items()}
            return {
                who: tuple((late - early) / IDLE_SECONDS for early, late in zip(before[who], after[who], strict=True))
                for who in processes
            }  # type: ignore[return-value]
        finally:
            crew.end(now=True)


def _spent(pid: int) -> tuple[float, float]:
    """Seconds of processor time, and wakings, of a process with its threads and its children."""
    seconds, woken = 0.0, 0
    for one in [pid, *_children(pid)]:
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / 100
        for thread in Path(f"/proc/{one}/task").iterdir():
            said = thread.joinpath("status").read_text()
            woken += int(said.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return seconds, float(woken)


def _children(pid: int) -> list[int]:
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [further for child in found for further in _children(child)]


def _await(seen: list[Any], count: int) -> None:
    eventually(lambda: len(_runtimes(seen)) >= count, 20)


def _runtimes(seen: list[Any]) -> list[Any]:
    return [event for event in list(seen) if event["type"] == "task-succeeded"]


@contextmanager
def _database(kind: str = "sqlite") -> Iterator[Database]:
    with ExitStack() as ends:
        if kind == "sqlite":
            name = ends.enter_context(tempfile.TemporaryDirectory(prefix="backhaul-bench-"))
            url = f"sqlite:///{name}/app.sqlite"
        else:
            url = ends.enter_context(postgresql()).database()
        database = open_database(url)
        ends.callback(database.close)
        upgrade_replica(database)
        yield database


if __name__ == "__main__":
    print(f"enqueue: {statistics.median(enqueued_per_second()):,.0f} a second")
    for at_once in (1, BURST):
        print(f"claim to settle, {at_once} at once: {added(at_once):+.2f} ms")
    for each in KINDS:
        print(f"due, {each}: {statistics.median(dispatch(each)):.2f} ms")
    print("idle:", idle())
    check_endings()
