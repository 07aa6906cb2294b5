"""The host's own functions and plain Celery tasks as work, with real workers: how they end, stop, die, and what
Celery's events, and so Flower, say of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from backhaul.bell import Ring
from backhaul.work.constraints import FileTrigger
from backhaul.work.request import WorkRequest
from tests.crew import CONFIGURATION, Crew, kill
from tests.waiting import eventually

Events = Sequence[Mapping[str, Any]]
POOLS = pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(tmp_path / "home")
    yield crew
    crew.end()


def told(events: Events, kind: str) -> Callable[[], Mapping[str, Any] | None]:
    return lambda: next((event for event in events if event["type"] == f"task-{kind}"), None)


# what a run is called, and how it ends


def test_a_function_is_a_celery_task_of_its_own_name(crew: Crew) -> None:
    crew.worker(queues="sync")
    work, former = crew.enqueue("note", word="now"), crew.enqueue("jot", word="formerly")
    with crew.events() as events:
        crew.ring(work.ring)
        crew.ring(former.ring)
        crew.settled(work)
        crew.settled(former)
        eventually(lambda: len([one for one in events if one["type"] == "task-succeeded"]) == 2, 10, "both are told")
    seen = [(one["type"], one["uuid"]) for one in events if one["type"].startswith("task-")]
    for row in (work, former):
        assert [kind for kind, uuid in seen if uuid == row.id and kind != "task-sent"] == [
            "task-received",
            "task-started",
            "task-succeeded",
        ]
    assert {one["name"] for one in events if one["type"] == "task-received"} == {"note", "jot"}
    assert sorted(crew.notes()) == ["formerly one@crew", "now one@crew"]


def test_a_retry_is_told_with_its_reason_and_its_time(crew: Crew) -> None:
    crew.worker(queues="sync")
    work = crew.enqueue("again")
    with crew.events() as events:
        crew.ring(work.ring)
        retried = eventually(told(events, "retried"), 10, "it is told")
    assert re.search(r"the till is not closed; again in (60|5\d(\.\d)?) s", retried["exception"])
    assert crew.work(work).state == "ENQUEUED"


def test_an_exception_is_told_to_the_hosts_hook(crew: Crew) -> None:
    crew.worker(queues="sync")
    work = crew.enqueue("fail")
    crew.ring(work.ring)
    crew.settled(work, "FAILED")
    eventually(lambda: "told of fail: ValueError " in crew.notes(), 5, "the hook is called")


def test_a_function_that_no_worker_has_fails_with_what_to_do(crew: Crew) -> None:
    crew.worker(queues="sync")
    work = crew.enqueue("shop.reports.nothing")
    with crew.events() as events:
        crew.ring(work.ring)
        eventually(told(events, "failed"), 10, "it is told")
    row = crew.settled(work, "FAILED")
    assert "no worker function 'shop.reports.nothing'" in str(row.last_error)
    assert "[work] modules" in str(row.last_error)
    eventually(lambda: "told of shop.reports.nothing: WorkerUnknown " in crew.notes(), 5, "the hook is called")
    crew.settled(rung(crew, crew.enqueue()))  # the worker goes on


def test_a_message_that_comes_twice_or_late_runs_nothing_and_says_nothing(crew: Crew) -> None:
    crew.worker("one", "-c", "2", queues="sync")
    failing = crew.enqueue("fail")
    with crew.events() as events:
        crew.ring(failing.ring)
        eventually(told(events, "failed"), 10, "it has failed")
        crew.ring(failing.ring)  # late
        slow = crew.enqueue("slow", seconds=1)
        crew.ring(slow.ring)
        crew.ring(slow.ring)
        crew.settled(slow)
        eventually(told(events, "succeeded"), 10, "it is told")
    assert crew.notes().count("begun one@crew") == 1
    ends = ("task-succeeded", "task-failed", "task-retried")
    assert [one["uuid"] for one in events if one["type"] in ends] == [failing.id, slow.id]


def rung(crew: Crew, work: Any) -> Any:
    crew.ring(work.ring)
    return work


# how it stops


@POOLS
def test_a_warm_shutdown_asks_at_once_and_loses_nothing(crew: Crew, pool: str) -> None:
    worker = crew.worker("one", "-P", pool, queues="sync")
    work = rung(crew, crew.enqueue("counting", to=1_000))
    eventually(lambda: crew.work(work).checkpoint, 10, "it has begun")
    asked = time.time()
    worker.terminate()
    worker.wait(60)
    row = crew.work(work)
    assert (row.state, row.stop_reason, row.attempt) == ("ENQUEUED", "DEPLOY_DRAIN", 1)
    stopped = next(float(note.split()[1]) for note in crew.notes() if note.startswith("stopped"))
    assert stopped - asked < 2
    assert row.checkpoint is not None
    at = row.checkpoint["at"]

    crew.worker("two", "-P", pool, queues="sync")
    crew.ring(row.ring)
    eventually(lambda: f"from {at} two@crew" in crew.notes(), 10, "it goes on where it was")


@POOLS
def test_a_constraint_that_is_lost_is_heard_of_by_a_function_that_waits(crew: Crew, pool: str) -> None:
    crew.worker("one", "-P", pool)
    work = rung(crew, crew.enqueue("waiting", requires="unmetered"))
    eventually(crew.notes, 10, "it has begun")
    lost = time.time()
    crew.set(unmetered=False)
    row = crew.settled(work, "ENQUEUED")
    assert (row.stop_reason, row.attempt, row.output) == ("CONSTRAINT_CONNECTIVITY", 1, None)
    reason, at = crew.notes()[1].split()
    assert reason == "CONSTRAINT_CONNECTIVITY"
    assert float(at) - lost < 2


@POOLS
def test_what_is_cancelled_while_it_runs_hears_of_it_and_is_revoked(crew: Crew, pool: str) -> None:
    crew.worker("one", "-P", pool, queues="sync")
    work = crew.enqueue("waiting")
    with crew.events() as events:
        crew.ring(work.ring)
        eventually(crew.notes, 10, "it has begun")
        cancelled = time.time()
        crew.cancel(work)
        revoked = eventually(told(events, "revoked"), 10, "it is told")
    reason, at = crew.notes()[1].split()
    assert (reason, revoked["uuid"]) == ("CANCELLED_BY_APP", work.id)
    assert float(at) - cancelled < 2
    row = crew.work(work)
    assert (row.state, row.output) == ("CANCELLED", None)


def test_what_is_cancelled_before_it_began_is_revoked_when_its_message_comes(crew: Crew) -> None:
    crew.worker(queues="sync")
    work = crew.enqueue("note")
    crew.cancel(work)
    with crew.events() as events:
        crew.ring(work.ring)
        assert eventually(told(events, "revoked"), 10, "it is told")["uuid"] == work.id
    assert crew.notes() == []


def test_what_is_beyond_the_limit_of_a_run_is_stopped(tmp_path: Path) -> None:
    crew = Crew(tmp_path / "home", configuration=CONFIGURATION + 'run_limit = "1s"\n')
    crew.worker(queues="sync")
    work = rung(crew, crew.enqueue("waiting"))
    eventually(lambda: len(crew.notes()) >= 2, 10, "it was stopped")
    assert crew.notes()[1].startswith("TIMEOUT ")
    eventually(lambda: crew.work(work).stop_reason == "TIMEOUT" or crew.work(work).state == "RUNNING", 5, "settled")
    crew.end()


def test_a_function_that_does_not_hear_is_ended_with_its_process(tmp_path: Path) -> None:
    crew = Crew(tmp_path / "home", configuration=CONFIGURATION + 'stop_grace = "1s"\n')
    crew.worker(queues="sync")
    work = crew.enqueue("deaf", seconds=60)
    with crew.events() as events:
        crew.ring(work.ring)
        eventually(crew.notes, 10, "it has begun")
        crew.cancel(work)
        assert eventually(told(events, "revoked"), 15, "it is told")["uuid"] == work.id
    crew.settled(rung(crew, crew.enqueue()))  # the pool has another process
    assert "ended one@crew" not in crew.notes()
    crew.end()


def test_a_function_that_does_not_hear_that_its_constraint_is_lost_is_ended_and_waits(tmp_path: Path) -> None:
    crew = Crew(tmp_path / "home", configuration=CONFIGURATION + 'stop_grace = "1s"\n')
    crew.worker()
    work = rung(crew, crew.enqueue("deaf", requires="unmetered", seconds=60))
    eventually(crew.notes, 10, "it has begun")
    crew.set(unmetered=False)
    stopped = crew.settled(work, "ENQUEUED")
    assert (stopped.stop_reason, stopped.attempt) == ("CONSTRAINT_CONNECTIVITY", 1)
    crew.settled(rung(crew, crew.enqueue()))  # the pool has another process
    assert (crew.work(work).state, crew.work(work).attempt) == ("ENQUEUED", 1)
    crew.end()


@pytest.mark.parametrize("pool", ["threads", "gevent", "solo"])
def test_a_function_that_does_not_hear_in_a_thread_is_told_in_the_log(tmp_path: Path, pool: str) -> None:
    crew = Crew(tmp_path / "home", configuration=CONFIGURATION + 'stop_grace = "1s"\n')
    crew.worker("one", "-P", pool, queues="sync")
    work = rung(crew, crew.enqueue("deaf", seconds=60))
    eventually(crew.notes, 10, "it has begun")
    crew.cancel(work)
    eventually(lambda: "goes on: only its worker's end will end it" in crew.log("worker-one"), 10, "it is told")
    crew.release(work)
    eventually(lambda: "ended one@crew" in crew.notes(), 10, "it has ended by itself")
    assert crew.work(work).state == "CANCELLED"
    crew.end()


# how it dies


def test_a_worker_that_is_killed_costs_its_lease_and_keeps_attempt_and_checkpoint(crew: Crew) -> None:
    worker = crew.worker(queues="sync")
    work = rung(crew, crew.enqueue("counting", to=20))
    eventually(lambda: (crew.work(work).checkpoint or {}).get("at", 0) >= 3, 10, "it is in the middle")
    killed = time.time()
    kill(worker)
    at = crew.work(work).checkpoint
    crew.beat()
    row = crew.settled(work, "ENQUEUED", timeout=25)
    assert time.time() - killed < 23  # the lease is 20 s
    assert (row.attempt, row.checkpoint, row.stop_reason) == (1, at, "WORKER_LOST")
    assert at is not None
    crew.worker("two", queues="sync")
    row = crew.settled(work)
    assert f"from {at['at']} two@crew" in crew.notes()
    assert (row.attempt, row.output, row.checkpoint) == (2, {"at": 20}, None)


def test_a_function_that_kills_its_process_is_not_run_for_ever(tmp_path: Path) -> None:
    crew = Crew(tmp_path / "home", configuration=CONFIGURATION + "most_losses = 1\n")
    crew.worker(queues="sync")
    crew.beat()
    row = crew.settled(rung(crew, crew.enqueue("deadly")), "FAILED", timeout=35)
    assert row.last_error == (
        "WORKER_LOST, 1 in a row while it ran: the last time its process died, and its worker lived on"
    )
    assert crew.notes() == ["begun one@crew"]
    crew.end()


# what Beat sees to


def test_work_that_waits_for_a_file_runs_when_it_changes(crew: Crew) -> None:
    crew.worker(queues="sync")
    crew.beat()
    file = crew.home / "prices.csv"
    request = WorkRequest(
        task="note",
        input={"word": "new prices"},
        requires=frozenset({"connected"}),
        triggers=(FileTrigger(file),),
        trigger_update_ms=500,
        trigger_most_ms=1_000,
    )
    work = crew.ask(request)
    eventually(crew.looked, 20, "Beat knows that there is no such file")
    file.write_text("1")
    assert crew.settled(work).triggered == (str(file),)


def test_work_that_has_not_begun_in_its_time_ends_by_itself(crew: Crew) -> None:
    crew.worker(queues="sync")
    crew.beat()
    work = crew.ask(
        WorkRequest(task="note", input={"word": "x"}, requires=frozenset({"unmetered"}), expires_after_ms=500)
    )
    assert crew.settled(work, "CANCELLED").stop_reason == "EXPIRED"
    assert crew.notes() == []


def test_a_constraint_that_is_back_before_the_gate_has_looked_is_seen_by_beat(crew: Crew) -> None:
    crew.worker()
    crew.beat()
    work = rung(crew, crew.enqueue("slow", requires="unmetered", seconds=2))
    eventually(crew.notes, 10, "it has begun")
    crew.set(unmetered=False)
    crew.settled(work, "ENQUEUED")
    crew.set(unmetered=True)
    crew.settled(work, timeout=20)


# plain Celery tasks


@POOLS
def test_a_plain_celery_task_runs_as_work_under_its_own_name(crew: Crew, pool: str) -> None:
    crew.worker("one", "-P", pool, queues="sync")
    work = crew.plain("shop.send", "hello", times=2)
    with crew.events() as events:
        crew.ring(work.ring)
        row = crew.settled(work)
        assert eventually(told(events, "received"), 10, "it is told")["name"] == "shop.send"
        eventually(told(events, "succeeded"), 10, "it is told")
    assert row.output == {"result": ["hello", "hello"]}
    assert crew.notes() == [f"hello 2 0 {work.id} "]


def test_a_plain_task_that_asks_for_another_try_has_it_when_it_asks(crew: Crew) -> None:
    crew.worker(queues="sync")
    crew.beat()
    work = crew.plain("shop.stubborn", "bread")
    with crew.events() as events:
        crew.ring(work.ring)
        retried = eventually(told(events, "retried"), 10, "it is told")
    assert "the till is busy" in retried["exception"]
    row = crew.settled(work, timeout=10)
    assert crew.notes() == ["bread 0 ", "bread 1 "]
    assert (row.output, row.attempt) == ({"word": "bread"}, 2)


def test_a_plain_task_with_autoretry_fails_after_its_last_retry(crew: Crew) -> None:
    crew.worker(queues="sync")
    crew.beat()
    work = rung(crew, crew.plain("shop.flaky"))
    row = crew.settled(work, "FAILED", timeout=20)
    assert crew.notes().count("flaky ") == 3
    assert "OSError: no paper" in str(row.last_error)
    assert row.attempt == 3


def test_a_plain_task_that_no_worker_has_fails_with_what_to_do(crew: Crew) -> None:
    crew.worker(queues="sync")
    row = crew.settled(rung(crew, crew.plain("shop.nothing")), "FAILED")
    assert "no Celery task 'shop.nothing'" in str(row.last_error)
    assert "[work] modules" in str(row.last_error)


def test_a_message_by_the_wrong_queue_is_rung_for_again_in_the_right_one(crew: Crew) -> None:
    crew.worker()
    work = crew.ask(WorkRequest(task="note", input={"word": "x"}, requires=frozenset({"unmetered"})))
    crew.ring(Ring(task=work.task, work_id=work.id, generation=0, queue="sync", task_id=work.task_id))
    crew.settled(work)
