from __future__ import annotations

from collections.abc import Sequence

import pytest

from backhaul.bell import Queue
from backhaul.database import Database
from backhaul.errors import Unknown
from backhaul.work import QueueState, Work, Worker, WorkRequest, conditions, ledger
from backhaul.work.conditions import effective
from backhaul.work.why import why

T = 1_767_355_200_000  # 2026-01-02T12:00:00Z
MEDIA = Queue(name="media", tags=frozenset({"connected", "unmetered"}))


def worker(*, open: bool) -> Worker:  # noqa: A002 - the field's name
    state = QueueState(name="media", open=open, reason="" if open else "unmetered is off (configured)")
    return Worker(name="w1", pid=1, started_at=T, seen_at=T, queues=(state,))


class Desk:
    def __init__(self, database: Database) -> None:
        self.database = database

    def enqueue(self, **asked: int) -> Work:
        with self.database.writing() as connection:
            request = WorkRequest(task="backhaul.upload", requires=MEDIA.tags, **asked)  # type: ignore[arg-type]
            return ledger.enqueue(connection, request, queue="media", now=T)

    def claim(self, work: Work, now: int = T) -> Work:
        with self.database.writing() as connection:
            run = ledger.claim(connection, work.id, 0, worker="w1", now=now, lease_ms=60_000)
        assert run is not None
        return run

    def ask(
        self, work: Work, *, now: int = T, queues: Sequence[Queue] = (MEDIA,), workers: Sequence[Worker] = ()
    ) -> str:
        with self.database.reading() as connection:
            held = effective({}, {}, conditions.overrides(connection, now))
            return why(connection, work.id, held, frozenset(), queues, workers, now)


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def test_a_closed_constraint_is_named_with_its_source_and_the_tries_so_far(desk: Desk) -> None:
    work = desk.enqueue()
    run = desk.claim(work)
    with desk.database.writing() as connection:
        ledger.retry(connection, run, now=T, error="no answer")
        conditions.set_condition(connection, "unmetered", False, now=T + 1_000)
    assert desk.ask(work, now=T + 2_000) == (
        "ENQUEUED: waits for unmetered (off by override since 2026-01-02T12:00:01Z) on queue media; tried 1 time; "
        "next try when it opens, and not before 2026-01-02T12:00:30Z; last error: no answer"
    )
    assert "next try when it opens; last error" in desk.ask(work, now=T + 30_000)


def test_work_that_is_not_due_says_when_it_will_be(desk: Desk) -> None:
    work = desk.enqueue(initial_delay_ms=5_000)
    assert desk.ask(work) == "ENQUEUED: waits for its time on queue media; next try at 2026-01-02T12:00:05Z"


def test_a_queue_that_nobody_serves_is_said_so(desk: Desk) -> None:
    work = desk.enqueue()
    due = "due since 2026-01-02T12:00:00Z"
    assert desk.ask(work) == f"ENQUEUED: no live worker serves queue media; {due}"
    assert desk.ask(work, queues=()) == f"ENQUEUED: queue media is no longer declared in backhaul.toml; {due}"
    assert desk.ask(work, workers=[worker(open=False)]) == (
        f"ENQUEUED: queue media is closed on every worker that serves it (unmetered is off (configured)); {due}"
    )
    assert desk.ask(work, workers=[worker(open=False), worker(open=True)]) == (
        f"ENQUEUED: waits for a free worker on queue media; {due}"
    )


def test_running_work_names_its_worker_and_a_lost_one(desk: Desk) -> None:
    work = desk.enqueue()
    desk.claim(work)
    assert desk.ask(work) == "RUNNING: on w1 since 2026-01-02T12:00:00Z, try 1"
    with desk.database.writing() as connection:
        ledger.request_stop(connection, work.id, "USER")
    assert desk.ask(work, now=T + 60_000) == (
        "RUNNING: on w1 since 2026-01-02T12:00:00Z, try 1; asked to stop: USER; "
        "its worker is not heard of; it will be taken back"
    )


def test_finished_work_says_since_when_and_why(desk: Desk) -> None:
    work = desk.enqueue()
    with desk.database.writing() as connection:
        ledger.cancel(connection, work.id, now=T, by="a person")
    assert desk.ask(work) == "CANCELLED: since 2026-01-02T12:00:00Z; last error: cancelled by a person"


def test_the_last_stop_is_told(desk: Desk) -> None:
    work = desk.enqueue()
    run = desk.claim(work)
    with desk.database.writing() as connection:
        ledger.stop(connection, run, now=T, reason="CONSTRAINT_CHARGING")
    assert desk.ask(work, workers=[worker(open=True)]).endswith("; last stop: CONSTRAINT_CHARGING")


def test_unknown_work_is_an_error_with_a_hint(desk: Desk) -> None:
    with desk.database.reading() as connection, pytest.raises(Unknown) as caught:
        why(connection, "nobody", effective({}, {}, {}), frozenset(), [], [], T)
    assert caught.value.hint
