from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, event

from backhaul.backoff import Backoff
from backhaul.database import Database
from backhaul.errors import Misused, Stopped
from backhaul.work import Work, WorkRequest, ledger
from backhaul.work.ledger import asking

T = 1_767_355_200_000  # 2026-01-02T12:00:00Z
MINUTE = 60_000
HOUR = 60 * MINUTE


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.writing() as opened:
        yield opened


def request(**asked: Any) -> WorkRequest:
    return WorkRequest(**{"task": "backhaul.upload", **asked})


def enqueued(connection: Connection, now: int = T, **asked: Any) -> Work:
    return ledger.enqueue(connection, request(**asked), queue="sync", now=now)


def running(connection: Connection, now: int = T, **asked: Any) -> Work:
    work = enqueued(connection, now, **asked)
    return claimed(connection, work, work.due_at)


def claimed(connection: Connection, work: Work, now: int) -> Work:
    run = ledger.claim(connection, work.id, work.generation, worker="w", now=now, lease_ms=MINUTE)
    assert run is not None
    return run


def current(connection: Connection, work: Work) -> Work:
    row = ledger.get(connection, work.id)
    assert row is not None
    return row


# ------------------------------------------------------------------------------------------------------ enqueue


def test_enqueued_work_is_what_was_asked_for(connection: Connection) -> None:
    backoff = Backoff(policy="linear", initial_ms=10_000, most_ms=20_000, jitter=0.5)
    asked = request(
        requires=frozenset({"unmetered", "charging"}),
        tags=frozenset({"b", "a"}),
        input={"upload": "x", "list": [1, None, 2.5]},
        initial_delay_ms=5,
        backoff=backoff,
        max_attempts=3,
    )
    work = ledger.enqueue(connection, asked, queue="media", now=T)
    assert (work.id, work.state, work.queue, work.due_at, work.enqueued_at) == (asked.id, "ENQUEUED", "media", T + 5, T)
    assert (work.requires, work.tags, work.input) == (("charging", "unmetered"), ("a", "b"), asked.input)
    assert (work.backoff, work.max_attempts, work.attempt, work.fence) == (backoff, 3, 0, 0)
    assert current(connection, work) == work


def test_an_id_that_exists_is_not_enqueued_again(connection: Connection) -> None:
    first = enqueued(connection, id="one", input={"n": 1})
    assert enqueued(connection, now=T + 1, id="one", input={"n": 2}) == first


def test_a_name_in_use_is_refused(connection: Connection) -> None:
    enqueued(connection, name="tidy")
    with pytest.raises(Misused, match="tidy"):
        enqueued(connection, name="tidy")


def test_the_first_periodic_run_is_at_once_or_in_the_last_part_of_the_interval(connection: Connection) -> None:
    assert enqueued(connection, interval_ms=HOUR).due_at == T
    assert enqueued(connection, interval_ms=HOUR, flex_ms=HOUR).due_at == T
    assert enqueued(connection, interval_ms=HOUR, flex_ms=15 * MINUTE).due_at == T + 45 * MINUTE
    assert enqueued(connection, interval_ms=HOUR, flex_ms=15 * MINUTE, initial_delay_ms=7).due_at == T + 45 * MINUTE + 7


def test_unique_work_needs_a_name(connection: Connection) -> None:
    with pytest.raises(Misused, match="name"):
        ledger.enqueue_unique(connection, request(), queue="sync", policy="keep", now=T)


@pytest.mark.parametrize("begun", [False, True], ids=["ENQUEUED", "RUNNING"])
def test_keep_stores_nothing_while_the_old_work_is_unfinished(connection: Connection, begun: bool) -> None:
    old = (running if begun else enqueued)(connection, name="tidy")
    asked = request(name="tidy")
    assert ledger.enqueue_unique(connection, asked, queue="sync", policy="keep", now=T) == old
    assert ledger.get(connection, str(asked.id)) is None


@pytest.mark.parametrize("policy", ["keep", "replace", "update"])
def test_finished_work_makes_room_for_its_namesake(connection: Connection, policy: Any) -> None:
    old = running(connection, name="tidy")
    ledger.succeed(connection, old, now=T + 1)
    new = ledger.enqueue_unique(connection, request(name="tidy"), queue="sync", policy=policy, now=T + 2)
    assert (new.state, new.name) == ("ENQUEUED", "tidy")
    assert (current(connection, old).state, current(connection, old).name) == ("SUCCEEDED", None)


def test_replace_cancels_a_run_under_way_and_ignores_its_result(connection: Connection) -> None:
    old = running(connection, name="tidy")
    new = ledger.enqueue_unique(connection, request(name="tidy"), queue="sync", policy="replace", now=T + 1)
    assert ledger.renew(connection, old, now=T + 2, lease_ms=MINUTE) == "CANCELLED_BY_APP"
    with pytest.raises(Stopped, match="no longer") as caught:
        ledger.succeed(connection, old, now=T + 3)
    assert caught.value.reason == "CANCELLED_BY_APP"
    assert (current(connection, old).state, current(connection, new).state) == ("CANCELLED", "ENQUEUED")


def test_replace_under_the_same_id_leaves_the_old_run_nothing_to_settle(connection: Connection) -> None:
    old = running(connection, id="push", name="push")
    asked = request(id="push", name="push")
    new = ledger.enqueue_unique(connection, asked, queue="sync", policy="replace", now=T + 1)
    assert (new.generation, new.state) == (old.generation + 1, "ENQUEUED")
    claimed(connection, new, T + 2)
    with pytest.raises(Stopped):
        ledger.succeed(connection, old, now=T + 3)


def test_update_keeps_id_state_and_times_and_is_a_new_generation(connection: Connection) -> None:
    old = enqueued(connection, name="pull", interval_ms=8 * HOUR, flex_ms=HOUR, tags=frozenset({"old"}))
    asked = request(name="pull", interval_ms=8 * HOUR, flex_ms=2 * HOUR, tags=frozenset({"new"}))
    new = ledger.enqueue_unique(connection, asked, queue="sync", policy="update", now=T + 3 * HOUR)
    assert (new.id, new.generation, new.enqueued_at, new.tags) == (old.id, 1, T, ("new",))
    assert new.due_at == T + 6 * HOUR
    assert ledger.claim(connection, old.id, 0, worker="w", now=T + 9 * HOUR, lease_ms=1) is None


def test_update_measures_a_later_period_from_the_end_of_the_last(connection: Connection) -> None:
    ran = ledger.succeed(connection, running(connection, name="pull", interval_ms=HOUR), now=T + 5)
    asked = request(name="pull", interval_ms=8 * HOUR)
    new = ledger.enqueue_unique(connection, asked, queue="sync", policy="update", now=T + 3 * MINUTE)
    assert (new.runs, new.due_at) == (1, ran.enqueued_at + 8 * HOUR)


def test_an_update_that_says_nothing_new_changes_nothing(connection: Connection) -> None:
    old = enqueued(connection, name="pull", interval_ms=HOUR, requires=frozenset({"connected"}))
    asked = request(name="pull", interval_ms=HOUR, requires=frozenset({"connected"}))
    assert ledger.enqueue_unique(connection, asked, queue="sync", policy="update", now=T + 9) == old


def test_an_update_neither_shortens_a_backoff_nor_forgets_a_wake(connection: Connection) -> None:
    backing_off = ledger.retry(connection, running(connection, name="pull", interval_ms=HOUR), now=T, error="no")
    woken = enqueued(connection, name="push", interval_ms=HOUR, flex_ms=1)
    ledger.wake(connection, woken.id, T + 1)
    for name, due_at in (("pull", backing_off.due_at), ("push", T + 1)):
        asked = request(name=name, interval_ms=2 * HOUR, flex_ms=1)
        new = ledger.enqueue_unique(connection, asked, queue="sync", policy="update", now=T + 2)
        assert (new.generation, new.due_at) == (1, due_at)


def test_an_update_while_running_leaves_this_run_alone(connection: Connection) -> None:
    run = running(connection, name="pull", interval_ms=HOUR)
    asked = request(name="pull", interval_ms=2 * HOUR)
    assert ledger.enqueue_unique(connection, asked, queue="sync", policy="update", now=T + 1).state == "RUNNING"
    assert ledger.succeed(connection, run, now=T + 2).due_at == T + 2 + 2 * HOUR


def test_an_update_cannot_make_one_time_work_periodic(connection: Connection) -> None:
    enqueued(connection, name="tidy")
    with pytest.raises(Misused, match="one-time"):
        ledger.enqueue_unique(connection, request(name="tidy", interval_ms=1), queue="sync", policy="update", now=T)


# --------------------------------------------------------------------------------------------------------- wake


def test_a_wake_pulls_waiting_work_to_now_and_never_later(connection: Connection) -> None:
    work = enqueued(connection, initial_delay_ms=HOUR)
    assert (ledger.wake(connection, work.id, T + 10) or work).due_at == T + 10
    assert (ledger.wake(connection, work.id, T + 20) or work).due_at == T + 10


def test_a_wake_does_not_cut_a_backoff_short_unless_forced(connection: Connection) -> None:
    work = ledger.retry(connection, running(connection), now=T, error="no")
    assert ledger.wake(connection, work.id, T + 1) is None
    assert current(connection, work).due_at == T + 30_000
    assert (ledger.wake(connection, work.id, T + 1, force=True) or work).due_at == T + 1


def test_a_wake_during_a_periodic_run_makes_the_next_one_follow_at_once(connection: Connection) -> None:
    run = running(connection, interval_ms=HOUR)
    assert ledger.wake(connection, run.id, T) is None
    assert ledger.succeed(connection, run, now=T + 50).due_at == T + 50


def test_a_wake_of_finished_or_unknown_work_does_nothing(connection: Connection) -> None:
    work = ledger.succeed(connection, running(connection), now=T)
    assert ledger.wake(connection, work.id, T + 1, force=True) is None
    assert ledger.wake(connection, "nobody", T) is None
    assert current(connection, work) == work


# ----------------------------------------------------------------------------------------------------------- run


def test_a_claim_needs_the_time_the_generation_and_the_state(connection: Connection) -> None:
    work = enqueued(connection, initial_delay_ms=10)
    assert ledger.claim(connection, work.id, 0, worker="w", now=T + 9, lease_ms=1) is None
    assert ledger.claim(connection, work.id, 1, worker="w", now=T + 10, lease_ms=1) is None
    run = claimed(connection, work, T + 10)
    assert (run.state, run.attempt, run.fence, run.worker, run.started_at) == ("RUNNING", 1, 1, "w", T + 10)
    assert run.lease_until == T + 10 + MINUTE
    assert ledger.claim(connection, work.id, 0, worker="w", now=T + 11, lease_ms=1) is None


def test_of_eight_who_claim_at_once_exactly_one_wins(database: Database) -> None:
    with database.writing() as connection:
        works = [enqueued(connection) for _ in range(10)]
    ready, won = threading.Barrier(8), []

    def claim_all(name: str) -> None:
        ready.wait()
        for work in works:
            with database.writing() as connection:
                if ledger.claim(connection, work.id, 0, worker=name, now=T, lease_ms=MINUTE):
                    won.append(work.id)

    threads = [threading.Thread(target=claim_all, args=(f"w{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(won) == sorted(work.id for work in works)


def test_a_renewal_keeps_the_lease_and_the_progress_and_tells_of_a_stop(connection: Connection) -> None:
    run = running(connection)
    assert ledger.renew(connection, run, now=T + 9, lease_ms=MINUTE, progress={"sent": 5}) is None
    assert ledger.renew(connection, run, now=T + 10, lease_ms=MINUTE) is None
    assert (current(connection, run).lease_until, current(connection, run).progress) == (T + 10 + MINUTE, {"sent": 5})
    ledger.request_stop(connection, run.id, "USER")
    assert ledger.renew(connection, run, now=T + 11, lease_ms=MINUTE) == "USER"


def test_progress_beyond_the_limit_is_refused(connection: Connection) -> None:
    with pytest.raises(Misused, match="progress"):
        ledger.renew(connection, running(connection), now=T, lease_ms=1, progress={"x": "y" * 10_240})


def test_one_time_work_ends_with_its_output_or_its_error(connection: Connection) -> None:
    done = ledger.succeed(connection, running(connection), now=T + 1, output={"n": 1})
    assert (done.state, done.finished_at, done.output, done.last_outcome) == ("SUCCEEDED", T + 1, {"n": 1}, "success")
    failed = ledger.fail(connection, running(connection), now=T + 1, error="x" * 5_000)
    assert (failed.state, failed.finished_at, failed.last_outcome) == ("FAILED", T + 1, "failure")
    assert failed.last_error == "x" * 1_000


def test_a_period_ends_with_success_and_with_failure_and_throws_its_output_away(connection: Connection) -> None:
    run = running(connection, interval_ms=HOUR)
    work = ledger.succeed(connection, run, now=T + 10 * MINUTE, output={"n": 1})
    assert (work.state, work.attempt, work.runs, work.due_at) == ("ENQUEUED", 0, 1, T + 70 * MINUTE)
    assert (work.output, work.last_outcome, work.task_id) == (None, "success", f"{run.id}.1")
    again = ledger.fail(connection, claimed(connection, work, work.due_at), now=work.due_at, error="no")
    assert (again.state, again.attempt, again.runs, again.due_at) == ("ENQUEUED", 0, 2, work.due_at + HOUR)
    assert (again.last_outcome, again.last_error) == ("failure", "no")


def test_retries_wait_30_60_120_and_240_seconds(connection: Connection) -> None:
    work, now, waits = enqueued(connection), T, []
    for _ in range(4):
        work = ledger.retry(connection, claimed(connection, work, now), now=now, error="no")
        waits.append(work.due_at - now)
        now = work.due_at
    assert waits == [30_000, 60_000, 120_000, 240_000]
    assert (work.state, work.attempt, work.last_outcome, work.task_id) == ("ENQUEUED", 4, "retry", work.id)


def test_a_retry_waits_as_long_as_the_other_side_asks(connection: Connection) -> None:
    first, second = running(connection), running(connection)
    assert ledger.retry(connection, first, now=T, error="", retry_after_ms=90_000).due_at == T + 90_000
    assert ledger.retry(connection, second, now=T, error="", retry_after_ms=1).due_at == T + 30_000


def test_a_retry_keeps_the_period_and_success_ends_it_with_attempt_0(connection: Connection) -> None:
    work = ledger.retry(connection, running(connection, interval_ms=HOUR), now=T, error="no")
    assert (work.runs, work.attempt) == (0, 1)
    done = ledger.succeed(connection, claimed(connection, work, work.due_at), now=work.due_at)
    assert (done.runs, done.attempt, done.due_at, done.last_error) == (1, 0, work.due_at + HOUR, None)


def test_the_last_attempt_that_asks_for_another_is_a_failure(connection: Connection) -> None:
    work = ledger.retry(connection, running(connection, max_attempts=2), now=T, error="no")
    last = ledger.retry(connection, claimed(connection, work, work.due_at), now=work.due_at, error="no again")
    assert (last.state, last.last_error) == ("FAILED", "no again")
    assert ledger.retry(connection, running(connection, max_attempts=1, interval_ms=9), now=T, error="no").runs == 1


def test_stopped_work_stays_due_and_its_attempt_stays_counted(connection: Connection) -> None:
    run = running(connection, interval_ms=HOUR)
    ledger.renew(connection, run, now=T + 1, lease_ms=MINUTE, progress={"sent": 5})
    work = ledger.stop(connection, run, now=T + 2, reason="CONSTRAINT_CHARGING")
    assert (work.state, work.attempt, work.due_at, work.enqueued_at) == ("ENQUEUED", 1, T, T)
    assert (work.stop_reason, work.last_outcome, work.progress) == ("CONSTRAINT_CHARGING", "stopped", {"sent": 5})
    assert claimed(connection, work, T + 3).stop_reason is None


def test_a_run_out_of_time_gives_its_attempt_back(connection: Connection) -> None:
    assert ledger.stop(connection, running(connection), now=T + 2, reason="TIMEOUT").attempt == 0


def test_postponed_work_gives_its_attempt_back_and_is_not_rung_for_a_while(connection: Connection) -> None:
    work = ledger.postpone(connection, running(connection), now=T + 5, due_at=T + 5)
    assert (work.state, work.attempt, work.due_at, work.rung_at) == ("ENQUEUED", 0, T + 5, T + 5)
    later = ledger.postpone(connection, running(connection), now=T + 5, due_at=T + 9)
    assert (later.due_at, later.rung_at) == (T + 9, 0)


def test_work_whose_worker_died_is_taken_back_and_its_worker_settles_nothing(connection: Connection) -> None:
    run, healthy = running(connection), running(connection, now=T + 1)
    ledger.renew(connection, run, now=T, lease_ms=MINUTE, progress={"sent": 5})
    assert ledger.recover(connection, T + MINUTE - 1) == []
    (work,) = ledger.recover(connection, T + MINUTE)
    assert (work.id, work.state, work.attempt, work.due_at) == (run.id, "ENQUEUED", 1, T)
    assert (work.stop_reason, work.last_outcome, work.progress) == ("WORKER_LOST", "lost", None)
    assert current(connection, healthy).state == "RUNNING"
    with pytest.raises(Stopped) as caught:
        ledger.renew(connection, run, now=T + MINUTE, lease_ms=MINUTE)
    assert caught.value.reason == "LEASE_EXPIRED"


def test_cancelled_work_is_finished_and_a_run_under_way_hears_of_it(connection: Connection) -> None:
    waiting, run = enqueued(connection), running(connection)
    for work, reason in ((waiting, None), (run, "CANCELLED_BY_APP")):
        cancelled = ledger.cancel(connection, work.id, now=T + 1, by="a person")
        assert cancelled is not None
        assert (cancelled.state, cancelled.finished_at, cancelled.stop_reason) == ("CANCELLED", T + 1, reason)
        assert cancelled.last_error == "cancelled by a person"
    assert ledger.renew(connection, run, now=T + 2, lease_ms=1) == "CANCELLED_BY_APP"


SETTLING: dict[str, Callable[[Connection, Work], Work]] = {
    "succeed": lambda connection, work: ledger.succeed(connection, work, now=T),
    "fail": lambda connection, work: ledger.fail(connection, work, now=T, error="no"),
    "retry": lambda connection, work: ledger.retry(connection, work, now=T, error="no"),
    "stop": lambda connection, work: ledger.stop(connection, work, now=T, reason="USER"),
    "postpone": lambda connection, work: ledger.postpone(connection, work, now=T, due_at=T),
}
NOT_RUNNING: dict[str, Callable[[Connection, Work], object]] = {
    "ENQUEUED": lambda connection, run: ledger.stop(connection, run, now=T, reason="USER"),
    "SUCCEEDED": lambda connection, run: ledger.succeed(connection, run, now=T),
    "FAILED": lambda connection, run: ledger.fail(connection, run, now=T, error="no"),
    "CANCELLED": lambda connection, run: ledger.cancel(connection, run.id, now=T, by="test"),
    "RUNNING by another": lambda connection, run: claimed(
        connection, ledger.stop(connection, run, now=T, reason="USER"), T
    ),
}


@pytest.mark.parametrize("interval_ms", [0, HOUR], ids=["one-time", "periodic"])
@pytest.mark.parametrize("state", NOT_RUNNING)
@pytest.mark.parametrize("verb", SETTLING)
def test_what_is_not_this_runs_cannot_be_settled(
    connection: Connection, verb: str, state: str, interval_ms: int
) -> None:
    run = running(connection, interval_ms=interval_ms)
    NOT_RUNNING[state](connection, run)
    before = current(connection, run)
    with pytest.raises(Stopped):
        SETTLING[verb](connection, run)
    assert current(connection, run) == before


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "CANCELLED"])
def test_finished_work_is_neither_claimed_nor_stopped_nor_cancelled_nor_taken_back(
    connection: Connection, state: str
) -> None:
    run = running(connection)
    NOT_RUNNING[state](connection, run)
    before = current(connection, run)
    assert ledger.claim(connection, run.id, 0, worker="w", now=T + HOUR, lease_ms=1) is None
    assert ledger.request_stop(connection, run.id, "USER") is None
    assert ledger.cancel(connection, run.id, now=T + 9, by="test") is None
    assert ledger.recover(connection, T + HOUR) == []
    ledger.mark_rung(connection, [run], T + 9)
    assert current(connection, run) == before


def test_waiting_work_cannot_be_asked_to_stop(connection: Connection) -> None:
    assert ledger.request_stop(connection, enqueued(connection).id, "USER") is None


# --------------------------------------------------------------------------------------------------- bell, look


def test_what_is_due_is_rung_oldest_first_and_not_again_too_soon(connection: Connection) -> None:
    late, early = enqueued(connection, initial_delay_ms=20), enqueued(connection, initial_delay_ms=10)
    enqueued(connection, initial_delay_ms=HOUR)
    running(connection)
    due = ledger.due(connection, T + 20, ring_again_ms=1_000, limit=10)
    assert [work.id for work in due] == [early.id, late.id]
    assert [work.id for work in ledger.due(connection, T + 20, ring_again_ms=1_000, limit=1)] == [early.id]
    ledger.mark_rung(connection, [early], T + 20)
    ledger.mark_rung(connection, [], T + 20)
    assert [work.id for work in ledger.due(connection, T + 1_019, ring_again_ms=1_000, limit=9)] == [late.id]
    assert len(ledger.due(connection, T + 1_020, ring_again_ms=1_000, limit=9)) == 2
    unheard = ledger.due(connection, T + 1_020, ring_again_ms=1_000, limit=9, unheard=["sync"])
    assert [work.id for work in unheard] == [late.id]


def test_a_claim_forgets_that_it_was_rung_so_that_a_retry_rings_at_its_time(connection: Connection) -> None:
    work = enqueued(connection)
    ledger.mark_rung(connection, [work], T)
    retried = ledger.retry(connection, claimed(connection, work, T), now=T, error="no")
    assert [each.id for each in ledger.due(connection, retried.due_at, ring_again_ms=HOUR, limit=9)] == [work.id]


@pytest.mark.parametrize("interval_ms", [0, HOUR])
def test_what_has_run_since_it_was_rung_for_is_not_rung_for_its_next_time(
    connection: Connection, interval_ms: int
) -> None:
    work = enqueued(connection, interval_ms=interval_ms)
    due = ledger.due(connection, T, ring_again_ms=1_000, limit=9)
    run = claimed(connection, work, T)  # its message is in a worker before Beat has marked it
    ledger.succeed(connection, run, now=T) if interval_ms else ledger.retry(connection, run, now=T, error="no")
    ledger.mark_rung(connection, due, T)
    waits = current(connection, work)
    assert (waits.state, waits.rung_at) == ("ENQUEUED", 0)
    later = ledger.due(connection, waits.due_at, ring_again_ms=HOUR, limit=9, unheard=["sync"])
    assert [each.id for each in later] == [work.id]


def test_nor_is_what_was_asked_for_anew(connection: Connection) -> None:
    work = enqueued(connection)
    ledger.mark_rung(connection, [replace(work, generation=work.generation + 1)], T)
    assert current(connection, work).rung_at == 0


def plans(database: Database, look: Callable[[Connection], object]) -> str:
    """How SQLite goes about the statements of this look."""
    said: list[tuple[str, Any]] = []

    def hear(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        said.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", hear)
    try:
        with database.reading() as opened:
            look(opened)
            asked = [one for one in said if one[0].lstrip().startswith(("SELECT", "WITH"))]
            return "\n".join(
                str(row) for one in asked for row in opened.exec_driver_sql(f"EXPLAIN QUERY PLAN {one[0]}", one[1])
            )
    finally:
        event.remove(database.engine, "before_cursor_execute", hear)


def test_a_look_at_what_is_due_walks_the_index_of_what_waits(database: Database) -> None:
    with database.writing() as opened:
        entries = [ledger.Entry(request(initial_delay_ms=number), "sync") for number in range(2_000)]
        ledger.enqueue_all(opened, entries, now=T)
    due = plans(
        database,
        lambda opened: ledger.due(opened, T, ring_again_ms=1_000, limit=9, queues=["sync"], unheard=["media"]),
    )
    assert "SCAN backhaul_work" not in due
    assert due.count("ix_backhaul_work_unrung (queue=? AND expedited=? AND rung_at=? AND due_at<") == 2
    assert due.count("ix_backhaul_work_unrung (queue=? AND expedited=? AND rung_at>? AND rung_at<") == 2
    rung = plans(database, lambda opened: ledger.have_rung(opened, T, ring_again_ms=1_000, queues=["sync"]))
    assert rung.count("ix_backhaul_work_unrung (queue=? AND expedited=? AND rung_at>? AND rung_at<") == 2
    anywhere = plans(database, lambda opened: ledger.due(opened, T, ring_again_ms=1_000, limit=9))
    assert "ix_backhaul_work_unrung (queue>?" in anywhere
    soonest = plans(database, lambda opened: ledger.next_due_at(opened, T, queues=["sync"]))
    assert soonest.count("ix_backhaul_work_unrung (queue=? AND expedited=? AND rung_at=? AND due_at>") == 2
    assert "TEMP B-TREE" not in soonest
    assert "ix_backhaul_work_expiring" in plans(database, lambda opened: ledger.has_expired(opened, T))


def test_a_page_of_the_list_walks_an_index_in_its_order(database: Database) -> None:
    def plan(**asked: Any) -> str:
        return plans(database, lambda opened: ledger.latest(opened, limit=50, **asked))

    order, scan = "TEMP B-TREE", "USING INDEX ix_backhaul_work_{}finished"
    everything = plan()
    assert scan.format("un") in everything
    assert scan.format("") in everything
    assert order not in everything
    assert f"{scan.format('un')} ((created_at,id)<(?,?))" in plan(after=".5.a")
    assert f"{scan.format('')} (finished_at>? AND (finished_at,id)<(?,?))" in plan(after="5.5.a")
    for state, half, other in (("ENQUEUED", "un", ""), ("SUCCEEDED", "", "un")):
        assert scan.format(half) in plan(states=[state])
        assert scan.format(other) not in plan(states=[state])
        assert order not in plan(states=[state])
    assert "ix_backhaul_work_state (state=?)" in plan(states=["FAILED"])
    assert plan(states=[]) == ""


def test_what_has_a_tag_is_looked_up_by_it_and_by_the_name_of_its_function(database: Database) -> None:
    lookups = "autoindex_backhaul_work_tag_1 (tag=?)", "ix_backhaul_work_task (task=? AND function=?"
    looks: list[Callable[[Connection], object]] = [
        lambda opened: ledger.latest(opened, tags=["red"], limit=50),
        lambda opened: ledger.latest(opened, tags=["red"], states=["FAILED"], limit=50),
        lambda opened: ledger.query(opened, tags=["red"]),
    ]
    for look in looks:
        plan = plans(database, look)
        assert all(one in plan for one in lookups)
        assert "SCAN backhaul_work" not in plan
        assert "USING INDEX ix_backhaul_work_unfinished" not in plan
        assert "USING INDEX ix_backhaul_work_finished" not in plan


@pytest.mark.parametrize("few", [0, 5_000], ids=["many", "few"])
def test_many_that_have_a_tag_are_the_same_as_few(
    connection: Connection, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "FEW", few)
    red = enqueued(connection, tags=frozenset({"red"}))
    plain = enqueued(connection, task="backhaul.task", function="red")
    by_name = enqueued(connection, task="red", tags=frozenset({"red"}))
    enqueued(connection, task="backhaul.push", tags=frozenset({"blue"}))
    ended = ledger.succeed(connection, running(connection, task="red"), now=T + 1)
    unfinished = {red.id, plain.id, by_name.id}
    assert {one.id for one in ledger.query(connection, tags=["red", "nothing"])} == {*unfinished, ended.id}
    found = [one.id for one in ledger.latest(connection, tags=["red"])]
    assert (set(found[:3]), found[3:]) == (unfinished, [ended.id])
    assert [one.id for one in ledger.latest(connection, tags=["red"], states=["SUCCEEDED"])] == [ended.id]
    assert ledger.cancel_by_tag(connection, "red", now=T, by="test") == 2  # the first is sync's own
    assert current(connection, red).state == "ENQUEUED"
    assert ledger.cancel_by_tag(connection, "blue", now=T, by="test") == 0


def test_the_next_due_time_is_the_soonest_one_to_come(connection: Connection) -> None:
    assert ledger.next_due_at(connection, T) is None
    for delay in (0, 500, 300):
        enqueued(connection, initial_delay_ms=delay)
    assert ledger.next_due_at(connection, T) == T + 300
    assert ledger.next_due_at(connection, T + 300) == T + 500


def test_a_query_takes_any_of_a_list_and_all_of_the_lists(connection: Connection) -> None:
    red = enqueued(connection, tags=frozenset({"red"}))
    blue = running(connection, tags=frozenset({"blue", "Red"}), task="backhaul.push")
    assert [work.id for work in ledger.query(connection, tags=["red"])] == [red.id]
    assert {work.id for work in ledger.query(connection, tags=["red", "blue"])} == {red.id, blue.id}
    assert [work.id for work in ledger.query(connection, tags=["red", "blue"], states=["RUNNING"])] == [blue.id]
    assert [work.id for work in ledger.query(connection, task="backhaul.upload")] == [red.id]
    assert ledger.query(connection, tags=[]) == []
    assert len(ledger.query(connection, limit=1)) == 1
    assert ledger.counts(connection) == {"ENQUEUED": 1, "RUNNING": 1}


def test_finished_work_is_forgotten_after_its_time_and_unfinished_never(connection: Connection) -> None:
    enqueued(connection)
    old = ledger.succeed(connection, running(connection), now=T)
    young = ledger.succeed(connection, running(connection), now=T + 1)
    assert ledger.prune(connection, now=T + HOUR, older_than_ms=HOUR) == 1
    assert ledger.get(connection, old.id) is None
    assert ledger.get(connection, young.id) is not None
    assert ledger.counts(connection) == {"ENQUEUED": 1, "SUCCEEDED": 1}
