from __future__ import annotations

import logging
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from backhaul import telemetry
from backhaul.bell import Queue
from backhaul.database import Database
from backhaul.errors import Busy, DatabaseBusy, MediaMissing, SignInRequired, Stopped, Unreachable
from backhaul.work import ledger, run, worker
from backhaul.work.conditions import effective
from backhaul.work.context import Context
from tests.unit.work.bench import Bench, never, raising


@pytest.fixture
def bench(database: Database, clock: Any) -> Bench:
    return Bench(database, clock)


def test_a_body_that_returns_has_done_the_work(bench: Bench) -> None:
    work = bench.enqueue(input={"n": 1})
    settled = bench.run(work, lambda context: {"twice": context.work.input["n"] * 2})
    assert (settled.kind, settled.due_at) == ("done", None)
    assert (bench.row(work).state, bench.row(work).output, bench.row(work).worker) == ("SUCCEEDED", {"twice": 2}, None)


def test_the_body_runs_outside_every_transaction(bench: Bench) -> None:
    def body(context: Context) -> None:
        with bench.database.writing() as connection:  # would wait for the lock, were the run's own still open
            assert ledger.counts(connection) == {"RUNNING": 1}

    assert bench.run(bench.enqueue(), body).kind == "done"


def test_periodic_work_that_is_done_is_due_again_after_its_interval(bench: Bench) -> None:
    settled = bench.run(bench.enqueue(interval_ms=5_000), lambda context: None)
    assert (settled.kind, settled.due_at) == ("done", bench.clock.now() + 5_000)


@pytest.mark.parametrize("error", [Unreachable("no answer"), SignInRequired("no answer"), DatabaseBusy("no answer")])
def test_what_time_or_a_sign_in_heals_is_tried_again_after_the_backoff(bench: Bench, error: Exception) -> None:
    work = bench.enqueue()
    settled = bench.run(work, raising(error))
    assert (settled.kind, settled.reason, settled.due_at) == ("retry", "no answer", bench.clock.now() + 30_000)
    assert bench.row(work).last_error == "no answer"


def test_the_other_sides_wish_to_wait_is_kept(bench: Bench) -> None:
    settled = bench.run(bench.enqueue(), raising(Busy(retry_after_ms=120_000)))
    assert settled.due_at == bench.clock.now() + 120_000


def test_a_retry_beyond_the_last_attempt_is_a_failure(bench: Bench) -> None:
    settled = bench.run(bench.enqueue(max_attempts=1), raising(Unreachable("no answer")))
    assert (settled.kind, settled.reason) == ("failed", "no answer")


def test_what_the_other_side_refuses_has_failed(bench: Bench) -> None:
    work = bench.enqueue()
    settled = bench.run(work, raising(MediaMissing("the file is gone")))
    assert (settled.kind, settled.reason) == ("failed", "the file is gone")
    assert (bench.row(work).state, bench.row(work).last_error) == ("FAILED", "the file is gone")


def test_a_bug_is_a_failure_and_its_traceback_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    work = bench.enqueue()
    with caplog.at_level(logging.ERROR, logger="backhaul"):
        settled = bench.run(work, raising(ZeroDivisionError("oh")))
    assert (settled.kind, settled.reason) == ("failed", "ZeroDivisionError: oh")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.getMessage() == f"backhaul.upload {work.id}: failed: ZeroDivisionError: oh"


def test_output_that_cannot_be_kept_is_a_failure(bench: Bench) -> None:
    settled = bench.run(bench.enqueue(), lambda context: {"x": "y" * 10_240})
    assert settled.kind == "failed"
    assert "output" in settled.reason


def test_work_of_another_queue_is_handed_back_untouched(bench: Bench) -> None:
    work = bench.enqueue()
    settled = bench.run(work, never, queue="media")
    assert (settled.kind, settled.work, settled.due_at) == ("handed-back", work, work.due_at)
    assert bench.row(work) == work


FILMS = Queue(name="films", tags=frozenset({"unmetered"}), kinds=frozenset({"backhaul.upload"}))


def test_work_on_a_queue_that_its_kind_may_not_run_on_is_moved_to_the_one_that_it_may(bench: Bench) -> None:
    work = bench.enqueue(requires=frozenset({"unmetered"}))
    settled = bench.run(work, never, queues=[Queue(name="sync"), FILMS])
    assert settled.kind == "handed-back"
    assert settled.reason == "backhaul.upload runs on the queue films alone"
    moved = bench.row(work)
    assert (moved.queue, moved.state, moved.attempt, moved.due_at) == ("films", "ENQUEUED", 0, work.due_at)
    assert moved.ring.queue == "films"
    assert bench.run(moved, never, queues=[FILMS]).kind == "handed-back"  # the message that was there already
    assert bench.run(moved, lambda context: None, queue="films", queues=[FILMS]).kind == "done"


def test_work_that_the_queue_of_its_kind_cannot_take_waits_and_says_why(bench: Bench) -> None:
    work = bench.enqueue(requires=frozenset({"charging"}))
    settled = bench.run(work, never, queues=[Queue(name="sync", tags=frozenset({"charging"})), FILMS])
    assert settled.kind == "misrouted"
    assert "add charging to the tags of queue films" in settled.reason
    assert (bench.row(work).queue, bench.row(work).state) == ("sync", "ENQUEUED")
    assert bench.row(work).due_at == bench.clock.now() + 60_000


def test_work_called_on_the_spot_comes_by_no_queue(bench: Bench) -> None:
    assert bench.run(bench.enqueue(), lambda context: None, queue=None).kind == "done"


def test_a_message_for_work_that_does_not_wait_for_it_runs_nothing(bench: Bench) -> None:
    done, early = bench.enqueue(), bench.enqueue(initial_delay_ms=1)
    bench.run(done, lambda context: None)
    assert bench.run(done, never).kind == "not-claimed"
    assert bench.run(done, never, queue="media").kind == "not-claimed"
    assert bench.run(early, never).kind == "not-claimed"
    assert bench.row(early) == early
    unknown = run.run(
        bench.database,
        "nobody",
        0,
        worker="w",
        queue=None,
        conditions=lambda connection, now: ({}, frozenset()),
        clock=bench.clock,
        body=never,
    )
    assert (unknown.kind, unknown.work) == ("not-claimed", None)


def test_the_same_message_twice_runs_the_body_once(bench: Bench) -> None:
    work, runs = bench.enqueue(), []

    def body(context: Context) -> None:
        runs.append(bench.run(work, never).kind)

    assert bench.run(work, body).kind == "done"
    assert bench.run(work, never).kind == "not-claimed"
    assert runs == ["not-claimed"]


def test_work_whose_constraints_do_not_hold_waits_and_is_not_rung_at_once(bench: Bench) -> None:
    work = bench.enqueue(requires=frozenset({"unmetered"}))
    bench.switch("unmetered", False)
    settled = bench.run(work, never)
    assert (settled.kind, settled.due_at) == ("stopped", bench.clock.now())
    assert settled.reason == "unmetered is off (override, since 2026-01-02T12:00:00Z)"
    row = bench.row(work)
    assert (row.state, row.attempt, row.rung_at) == ("ENQUEUED", 0, bench.clock.now())
    bench.switch("unmetered", True)
    assert bench.run(work, lambda context: None).kind == "done"


def test_a_run_does_not_begin_while_its_queue_is_closed_whatever_it_requires_itself(bench: Bench) -> None:
    work = bench.enqueue()
    bench.switch("unmetered", False)
    settled = bench.run(work, never, queues=[Queue(name="sync", tags=frozenset({"connected", "unmetered"}))])
    assert (settled.kind, settled.reason) == ("stopped", "unmetered is off (override, since 2026-01-02T12:00:00Z)")
    assert (bench.row(work).state, bench.row(work).attempt) == ("ENQUEUED", 0)


def test_a_run_is_stopped_when_its_queue_closes_whatever_it_requires_itself(bench: Bench) -> None:
    work = bench.enqueue(requires=frozenset({"charging"}))

    def body(context: Context) -> None:
        bench.switch("unmetered", False)
        context.check(force=True)

    tags = frozenset({"charging", "unmetered"})
    settled = bench.run(work, body, queues=[Queue(name="sync", tags=tags)])
    assert (settled.kind, settled.reason) == ("stopped", "CONSTRAINT_CONNECTIVITY")
    assert (bench.row(work).state, bench.row(work).stop_reason) == ("ENQUEUED", "CONSTRAINT_CONNECTIVITY")


def test_work_that_demands_nothing_does_not_begin_in_a_pause(bench: Bench) -> None:
    work = bench.enqueue()
    bench.switch("not_paused", False)
    settled = bench.run(work, never, queues=[Queue(name="sync")])
    assert (settled.kind, settled.reason) == ("stopped", "not_paused is off (override, since 2026-01-02T12:00:00Z)")
    assert (bench.row(work).state, bench.row(work).attempt) == ("ENQUEUED", 0)
    bench.switch("not_paused", True)
    assert bench.run(work, lambda context: None, queues=[Queue(name="sync")]).kind == "done"


def test_work_that_demands_nothing_is_not_asked_what_holds_while_nothing_is_paused(bench: Bench) -> None:
    asked: list[int] = []

    def see(_: Connection, now: int) -> Any:
        asked.append(now)
        return effective({}, {}, {}), frozenset()

    work = bench.enqueue()
    queue = Queue(name="sync")
    bench.run(work, lambda context: None, queues=[queue], conditions=see)
    assert asked == []
    bench.switch("not_paused", False)  # a word of another node's, as far as this one sees
    assert bench.run(bench.enqueue(), lambda context: None, queues=[queue], conditions=see).kind == "done"
    assert len(asked) == 1


def test_work_under_a_former_name_runs_on_the_queue_of_its_kind(bench: Bench) -> None:
    @worker("films.cut", formerly=["films.trim"])
    def cut(_: Context) -> None: ...

    work = bench.enqueue(task="films.trim", requires=frozenset({"unmetered"}))
    films = Queue(name="films", tags=frozenset({"unmetered"}), kinds=frozenset({"films.cut"}))
    assert bench.run(work, never, queues=[Queue(name="sync"), films]).kind == "handed-back"
    assert bench.row(work).queue == "films"


def test_a_lost_constraint_stops_the_run_with_its_reason_and_no_backoff(bench: Bench) -> None:
    work = bench.enqueue(requires=frozenset({"charging"}))

    def body(context: Context) -> None:
        context.check()
        bench.switch("charging", False)
        context.check()  # too soon to look
        bench.clock.advance(500)
        context.check()
        raise AssertionError("this must not be reached")

    settled = bench.run(work, body)
    assert (settled.kind, settled.reason) == ("stopped", "CONSTRAINT_CHARGING")
    row = bench.row(work)
    assert (row.state, row.attempt, row.stop_reason, row.due_at) == ("ENQUEUED", 1, "CONSTRAINT_CHARGING", work.due_at)


def test_a_body_that_swallows_the_stop_does_not_get_to_succeed(bench: Bench) -> None:
    work = bench.enqueue()

    def body(context: Context) -> None:
        with bench.database.writing() as connection:
            ledger.request_stop(connection, work.id, "USER")
        for _ in range(2):
            with pytest.raises(Stopped):
                context.check(force=True)

    assert (bench.run(work, body).reason, bench.row(work).state) == ("USER", "ENQUEUED")


def test_a_run_beyond_its_time_is_checkpointed_and_due_again(bench: Bench) -> None:
    work = bench.enqueue()

    def body(context: Context) -> None:
        context.progress({"sent": 1})
        bench.clock.advance(600_000)
        assert context.elapsed == 600_000
        context.progress({"sent": 2})

    settled = bench.run(work, body)
    assert (settled.kind, settled.reason, settled.due_at) == ("stopped", "TIMEOUT", work.due_at)
    assert (bench.row(work).attempt, bench.row(work).progress) == (0, {"sent": 2})


def test_checks_renew_the_lease(bench: Bench) -> None:
    work = bench.enqueue()

    def body(context: Context) -> None:
        for _ in range(3):
            bench.clock.advance(45_000)
            context.check()
            with bench.database.writing() as connection:
                assert ledger.recover(connection, bench.clock.now()) == []

    assert bench.run(work, body, lease_ms=60_000).kind == "done"


def test_a_run_that_lost_its_lease_settles_nothing(bench: Bench) -> None:
    work = bench.enqueue()

    def taken_over(context: Context) -> None:
        bench.clock.advance(60_000)
        with bench.database.writing() as connection:
            ledger.recover(connection, bench.clock.now())
        assert bench.run(work, lambda context: None).kind == "done"

    settled = bench.run(work, taken_over)
    assert (settled.kind, settled.reason) == ("not-claimed", "LEASE_EXPIRED")
    assert settled.work is not None
    assert (settled.work.state, settled.work.attempt) == ("SUCCEEDED", 2)


def test_a_run_that_was_cancelled_hears_of_it_and_its_result_is_ignored(bench: Bench) -> None:
    work = bench.enqueue()

    def body(context: Context) -> None:
        with bench.database.writing() as connection:
            ledger.cancel(connection, work.id, now=bench.clock.now(), by="test")
        context.check(force=True)

    assert (bench.run(work, body).reason, bench.row(work).state) == ("CANCELLED_BY_APP", "CANCELLED")


def test_a_process_that_ends_in_the_middle_gives_the_work_back_at_once(bench: Bench) -> None:
    work = bench.enqueue()
    with pytest.raises(KeyboardInterrupt):
        bench.run(work, raising(KeyboardInterrupt()))
    assert (bench.row(work).state, bench.row(work).stop_reason) == ("ENQUEUED", "DEPLOY_DRAIN")


def test_a_busy_database_does_not_stop_a_run_whose_lease_is_good(bench: Bench, monkeypatch: Any) -> None:
    work = bench.enqueue()

    def body(context: Context) -> None:
        def busy(**_: bool) -> None:
            raise DatabaseBusy

        with monkeypatch.context() as patch:
            patch.setattr(bench.database, "writing", busy)
            bench.clock.advance(59_000)
            context.check()
            assert not context.stopped

    assert bench.run(work, body).kind == "done"


def test_a_run_that_cannot_renew_its_lease_in_time_stops(bench: Bench, monkeypatch: Any) -> None:
    work = bench.enqueue()

    def body(context: Context) -> None:
        def busy(**_: bool) -> None:
            raise DatabaseBusy

        with monkeypatch.context() as patch:
            patch.setattr(bench.database, "writing", busy)
            bench.clock.advance(60_000)
            with pytest.raises(Stopped):
                context.check()

    settled = bench.run(work, body)
    assert (settled.kind, settled.reason, bench.row(work).state) == ("stopped", "LEASE_EXPIRED", "ENQUEUED")


def test_what_is_done_is_settled_when_the_database_was_busy_for_a_moment(bench: Bench, monkeypatch: Any) -> None:
    work = bench.enqueue()
    writing, refused = bench.database.writing, 2

    def busy(**said: bool) -> Any:
        nonlocal refused
        if refused:
            refused -= 1
            raise DatabaseBusy
        return writing(**said)

    def body(_: Context) -> None:
        monkeypatch.setattr(bench.database, "writing", busy)

    assert (bench.run(work, body).kind, bench.row(work).state) == ("done", "SUCCEEDED")


def test_so_is_what_was_stopped_with_its_progress(bench: Bench, monkeypatch: Any) -> None:
    work, stop, refused = bench.enqueue(), ledger.stop, 2

    def busy(*given: Any, **said: Any) -> Any:
        nonlocal refused
        if refused:
            refused -= 1
            raise DatabaseBusy
        return stop(*given, **said)

    def body(context: Context) -> None:
        context.progress({"at": 1})
        bench.clock.advance(1)
        context.progress({"at": 2})  # too soon after the first one to have been written
        monkeypatch.setattr(ledger, "stop", busy)
        raise Stopped("USER")

    assert bench.run(work, body).kind == "stopped"
    row = bench.row(work)
    assert (row.state, row.stop_reason, row.progress) == ("ENQUEUED", "USER", {"at": 2})


def test_progress_whose_writing_failed_is_written_with_the_next_renewal(bench: Bench, monkeypatch: Any) -> None:
    work, renew = bench.enqueue(), ledger.renew

    def locked(*_: Any, **__: Any) -> Any:
        raise OperationalError("UPDATE", {}, Exception("database is locked"))

    def body(context: Context) -> None:
        bench.clock.advance(1_000)
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "renew", locked)
            context.progress({"at": 1})
        bench.clock.advance(1_000)
        context.check()
        assert ledger.renew is renew
        assert bench.row(work).progress == {"at": 1}

    assert bench.run(work, body).kind == "done"


def test_a_lease_is_renewed_though_the_clock_was_set_back(bench: Bench) -> None:
    work = bench.enqueue()

    def body(context: Context) -> None:
        now = bench.clock.advance(-1_800_000)
        context.check()
        assert bench.row(work).lease_until <= now + 60_000

    assert bench.run(work, body).kind == "done"


def test_a_renewal_that_has_waited_long_for_the_row_counts_from_its_end(bench: Bench, monkeypatch: Any) -> None:
    work, renew = bench.enqueue(), ledger.renew

    def waiting(*given: Any, **said: Any) -> str | None:
        monkeypatch.setattr(ledger, "renew", renew)
        bench.clock.advance(600_000)
        return renew(*given, **said)

    def body(context: Context) -> None:
        bench.clock.advance(5_000)
        monkeypatch.setattr(ledger, "renew", waiting)
        context.check()
        assert bench.row(work).lease_until == bench.clock.now() + 60_000

    assert bench.run(work, body).kind == "done"


def test_what_happens_is_counted(bench: Bench) -> None:
    before = telemetry.counters()
    bench.run(bench.enqueue(), lambda context: None)
    after = telemetry.counters()
    for metric in ("backhaul_work_claimed_total", "backhaul_work_succeeded_total"):
        assert after[metric] == before[metric] + 1
