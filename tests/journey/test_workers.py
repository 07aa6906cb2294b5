"""Real workers and a real beat: what opens and closes, who runs what, and what is rung again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backhaul.bell import Ring
from backhaul.clock import SystemClock
from backhaul.work import conditions, roster
from tests.crew import CONFIGURATION, Crew, kill
from tests.waiting import eventually


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(tmp_path / "home")
    yield crew
    crew.end()


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_a_queue_closes_and_opens_with_its_conditions(crew: Crew, pool: str) -> None:
    crew.worker("one", "-P", pool)
    eventually(lambda: crew.is_open("media"), 5, "media is open")

    crew.set(unmetered=False)
    eventually(lambda: crew.is_open("media") is False, 3, "media is closed")
    state = crew.queue("media")
    assert state is not None
    assert state.reason.startswith("unmetered is off")
    waiting, flowing = crew.enqueue(requires="unmetered"), crew.enqueue(requires="connected")
    eventually(lambda: "Canceling queue media" in crew.log("worker-one"), 3, "the consumer let go of it")
    crew.ring(waiting.ring)
    crew.ring(flowing.ring)
    crew.settled(flowing)
    assert crew.work(waiting).state == "ENQUEUED"
    assert crew.waiting("media") == 1

    crew.set(unmetered=True)
    crew.settled(waiting, timeout=5)


def test_a_word_reaches_the_workers_of_its_node_alone_and_they_tell_how_it_is(tmp_path: Path) -> None:
    crew = Crew(tmp_path / "home", configuration=f'node = "kiosk"\nlabels = ["region:eu"]\n{CONFIGURATION}')
    try:
        crew.worker()
        running = crew.enqueue("waiting", requires="")
        crew.ring(running.ring)
        eventually(lambda: any("begun" in line for line in crew.notes()), 10, "it runs")
        with crew.database.writing() as connection:
            now = SystemClock().now()
            conditions.set_condition(connection, "charging", False, now=now, node="attic")
            conditions.set_condition(connection, "unmetered", False, now=now, node="kiosk")
        eventually(lambda: crew.is_open("media") is False, 5, "media is closed")
        state = crew.queue("media")
        assert state is not None
        assert "charging" not in state.reason
        with crew.database.reading() as connection:
            (worker,) = roster.alive(connection, SystemClock().now())
        assert (worker.node, worker.labels, worker.concurrency) == ("kiosk", {"region:eu"}, 1)
        assert worker.processes is not None
        assert (len(worker.processes), worker.pid in worker.processes) == (1, False)
        assert worker.conditions["unmetered"].source == "override"
        assert worker.conditions["charging"].value

        crew.set(not_paused=False)
        eventually(lambda: crew.is_open("sync") is False, 5, "sync is closed")
        eventually(lambda: any(line.startswith("USER") for line in crew.notes()), 10, "what ran was stopped")
        assert crew.settled(running, "ENQUEUED").stop_reason == "USER"
    finally:
        crew.end()


def test_a_queue_that_opens_rings_for_what_waits_there_without_a_beat(crew: Crew) -> None:
    crew.set(unmetered=False)
    crew.worker()
    work = crew.enqueue(requires="unmetered")
    crew.set(unmetered=True)
    crew.settled(work, timeout=5)


def test_a_closed_queue_stays_closed_when_the_broker_was_lost(crew: Crew) -> None:
    crew.set(unmetered=False)
    crew.worker()
    waiting = crew.enqueue(requires="unmetered")
    crew.broker.end()
    eventually(crew.broker.answers, 10, "the broker is back")
    crew.ring(waiting.ring)
    flowing = crew.enqueue()
    crew.ring(flowing.ring)
    crew.settled(flowing)
    assert crew.work(waiting).state == "ENQUEUED"
    assert crew.waiting("media") == 1


def test_work_for_media_that_comes_by_sync_is_handed_back_and_run_by_media_alone(crew: Crew) -> None:
    crew.worker("data", queues="sync")
    work = crew.enqueue(requires="unmetered", word="photo")
    wrong = Ring(task=work.task, work_id=work.id, generation=work.generation, queue="sync", task_id=work.task_id)
    crew.ring(wrong)
    eventually(lambda: crew.waiting("media") == 1, 5, "it is handed back")
    assert crew.work(work).state == "ENQUEUED"
    crew.worker("heavy", queues="media")
    crew.settled(work)
    assert crew.notes() == ["photo heavy@crew"]


def test_what_a_flush_took_is_rung_again_by_beat(crew: Crew) -> None:
    crew.worker(queues="sync")
    work = crew.enqueue(requires="unmetered")
    crew.ring(work.ring)
    crew.beat()
    eventually(lambda: crew.work(work).rung_at, 10, "beat has rung for it")
    crew.app.connection_for_write().default_channel.client.flushall()
    assert crew.waiting("media") == 0
    crew.worker("two", queues="media")
    crew.settled(work, timeout=15)


def test_a_closed_queue_does_not_pile_up_messages(crew: Crew) -> None:
    crew.set(unmetered=False)
    crew.worker()
    crew.beat()
    works = [crew.enqueue(requires="unmetered") for _ in range(3)]
    eventually(lambda: all(crew.work(work).rung_at for work in works), 10, "beat has rung for all")
    crew.enqueue("note", requires="connected", word="between")
    first = crew.work(works[0]).rung_at
    eventually(lambda: "between one@crew" in crew.notes(), 10, "beat goes on")
    with pytest.raises(AssertionError):
        eventually(lambda: crew.work(works[0]).rung_at != first or crew.waiting("media") > 3, 8)
    assert crew.waiting("media") == 3


def test_much_work_that_waits_does_not_hold_up_the_rest(crew: Crew) -> None:
    crew.set(unmetered=False)
    crew.worker()
    waiting = [crew.enqueue(requires="unmetered") for _ in range(450)]
    with crew.database.writing() as connection:  # a queue that was taken out of backhaul.toml since
        connection.exec_driver_sql("UPDATE backhaul_work SET queue = 'gone' WHERE id = ?", (waiting[0].id,))
    crew.beat()
    eventually(lambda: crew.waiting("media") == 449, 15, "all have been rung for, once")
    crew.settled(crew.enqueue())
    crew.set(unmetered=True)
    for work in waiting[1:]:
        crew.settled(work, timeout=30)
    assert crew.work(waiting[0]).state == "ENQUEUED"


def test_of_two_beats_one_leads_and_the_other_takes_over(crew: Crew) -> None:
    crew.worker(queues="sync")
    beats = {name: crew.beat(name) for name in ("one", "two")}
    leads = "leads the beats"
    leader = eventually(lambda: next((one for one in beats if leads in crew.log(f"beat-{one}")), None), 15, "a leader")
    other = next(one for one in beats if one != leader)
    crew.settled(crew.enqueue())
    assert leads not in crew.log(f"beat-{other}")

    kill(beats[leader])
    crew.settled(crew.enqueue(), timeout=20)
    assert leads in crew.log(f"beat-{other}")


def test_a_retry_is_told_with_its_reason_and_keeps_its_task_id(crew: Crew) -> None:
    crew.worker(queues="sync")
    work = crew.enqueue("later")
    with crew.events() as events:
        crew.ring(work.ring)
        told = eventually(lambda: [one for one in events if one["type"] == "task-retried"], 10, "it is told")[0]
    assert told["uuid"] == work.task_id
    assert "the printer is out of paper" in told["exception"]
    row = crew.settled(work, "ENQUEUED")
    assert row.task_id == work.task_id
    assert row.due_at - row.enqueued_at >= 60_000


def test_a_failure_is_told_by_its_first_line_alone(crew: Crew) -> None:
    crew.worker(queues="sync")
    work = crew.enqueue("fail")
    with crew.events() as events:
        crew.ring(work.ring)
        told = eventually(lambda: [one for one in events if one["type"] == "task-failed"], 10, "it is told")[0]
    assert "ValueError: a bug" in told["exception"]
    assert "secret" not in str(told)
    crew.settled(work, "FAILED")


def test_work_whose_worker_was_killed_runs_again(crew: Crew) -> None:
    worker = crew.worker(queues="sync")
    work = crew.enqueue("slow", seconds=0.5)
    crew.ring(work.ring)
    eventually(lambda: crew.notes() == ["begun one@crew"], 10, "it has begun")
    kill(worker)
    with crew.database.writing() as connection:  # its lease, a minute, passes at once
        connection.exec_driver_sql("UPDATE backhaul_work SET lease_until = 1 WHERE state = 'RUNNING'")
    crew.beat()
    crew.worker("two", queues="sync")
    crew.settled(work, timeout=20)
    assert crew.notes()[-1] == "ended two@crew"


def test_a_constraint_that_is_lost_stops_the_run_and_its_return_goes_on_with_it(crew: Crew) -> None:
    crew.worker()
    work = crew.enqueue("slow", requires="unmetered", seconds=3)
    crew.ring(work.ring)
    eventually(lambda: crew.notes(), 10, "it has begun")
    crew.set(unmetered=False)
    stopped = crew.settled(work, "ENQUEUED")
    assert stopped.stop_reason == "CONSTRAINT_CONNECTIVITY"
    eventually(lambda: crew.is_open("media") is False, 5, "media is closed")  # what flips faster is left to Beat
    crew.set(unmetered=True)
    crew.settled(work, timeout=15)


def test_a_folder_without_a_replica_is_told_in_one_line(tmp_path: Path) -> None:
    crew = Crew(tmp_path / "home")
    (crew.home / "backhaul.toml").unlink()
    process = crew._start("worker-lost", "worker")
    assert process.wait(60) == 2
    assert "holds no replica" in crew.log("worker-lost")
    assert "Traceback" not in crew.log("worker-lost")
    crew.end()


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_a_worker_that_is_ended_lets_its_run_checkpoint(crew: Crew, pool: str) -> None:
    worker = crew.worker("one", "-P", pool, queues="sync")
    work = crew.enqueue("slow", seconds=60)
    crew.ring(work.ring)
    eventually(crew.notes, 10, "it has begun")
    worker.terminate()
    worker.wait(60)
    stopped = crew.work(work)
    assert (stopped.state, stopped.stop_reason) == ("ENQUEUED", "DEPLOY_DRAIN")
    assert crew.queue("sync") is None
    assert not crew.broker.answers()


def test_a_child_that_was_killed_costs_its_lease_and_no_more(crew: Crew) -> None:
    crew.worker(queues="sync")
    crew.beat()
    work = crew.enqueue("child", word="x")
    crew.settled(work, timeout=40)
    assert crew.notes() == ["killed one@crew", "x one@crew"]
    assert crew.work(work).attempt == 2
