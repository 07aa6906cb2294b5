from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from backhaul import telemetry
from backhaul.database import Database
from backhaul.errors import Busy, DatabaseBusy, MediaMissing, SignInRequired, Stopped, Unreachable
from backhaul.work import Work, WorkRequest, conditions, ledger, run
from backhaul.work.conditions import effective
from backhaul.work.run import Context, Settled

Body = Callable[[Context], dict[str, Any] | None]


class Bench:
    """One machine with its clock, its conditions and one piece of work."""

    def __init__(self, database: Database, clock: Any) -> None:
        self.database, self.clock = database, clock

    def enqueue(self, **asked: Any) -> Work:
        with self.database.writing() as connection:
            request = WorkRequest(**{"task": "backhaul.upload", **asked})
            return ledger.enqueue(connection, request, queue="sync", now=self.clock.now())

    def run(self, work: Work, body: Body, *, queue: str | None = "sync", **limits: int) -> Settled:
        return run.run(
            self.database,
            work.id,
            work.generation,
            worker="w1",
            queue=queue,
            conditions=lambda connection, now: (effective({}, {}, conditions.overrides(connection, now)), frozenset()),
            clock=self.clock,
            body=body,
            **limits,
        )

    def row(self, work: Work) -> Work:
        with self.database.reading() as connection:
            row = ledger.get(connection, work.id)
        assert row is not None
        return row

    def switch(self, name: str, value: bool) -> None:
        with self.database.writing() as connection:
            conditions.set_condition(connection, name, value, now=self.clock.now())


@pytest.fixture
def bench(database: Database, clock: Any) -> Bench:
    return Bench(database, clock)


def never(context: Context) -> None:
    raise AssertionError("this must not run")


def raising(error: BaseException) -> Body:
    def body(context: Context) -> None:
        raise error

    return body


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
        def busy() -> None:
            raise DatabaseBusy

        with monkeypatch.context() as patch:
            patch.setattr(bench.database, "writing", busy)
            bench.clock.advance(59_000)
            context.check()
            bench.clock.advance(1_000)
            with pytest.raises(DatabaseBusy):
                context.check()

    assert bench.run(work, body).kind == "done"


def test_what_happens_is_counted(bench: Bench) -> None:
    before = telemetry.counters()
    bench.run(bench.enqueue(), lambda context: None)
    after = telemetry.counters()
    for metric in ("backhaul_work_claimed_total", "backhaul_work_succeeded_total"):
        assert after[metric] == before[metric] + 1
