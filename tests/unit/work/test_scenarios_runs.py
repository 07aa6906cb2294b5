"""The scenarios of WorkManager that are about one run, by the numbers of docs/work.md: on the ledger, with a moved
clock."""

from __future__ import annotations

from typing import Any

import pytest

from backhaul.database import Database
from backhaul.errors import Stopped
from backhaul.work import Result, Work, hooks, on_exception
from backhaul.work.context import Context
from backhaul.work.functions import registered
from tests.unit.work.bench import Bench, raising


@pytest.fixture
def bench(database: Database, clock: Any) -> Bench:
    return Bench(database, clock)


@pytest.fixture
def told() -> Any:
    seen: list[tuple[str, str]] = []

    @on_exception
    def hear(work: Work, error: Exception) -> None:
        seen.append((work.id, type(error).__name__))

    yield seen
    hooks._hooks.clear()


def lose_charging(bench: Bench, work: Work, returned: Any = None) -> None:
    def body(context: Context) -> Any:
        bench.switch("charging", False)
        bench.clock.advance(500)
        with pytest.raises(Stopped):
            context.check()
        return returned

    bench.run(work, body)


def test_11_a_periodic_work_that_raises_closes_its_period_and_the_hook_is_called(bench: Bench, told: Any) -> None:
    work = bench.enqueue(interval_ms=3_600_000)
    settled = bench.run(work, raising(ValueError("oh")))
    row = bench.row(work)
    assert (settled.kind, row.state, row.attempt) == ("failed", "ENQUEUED", 0)
    assert row.due_at == bench.clock.now() + 3_600_000
    assert told == [(work.id, "ValueError")]


def test_18_a_message_that_comes_twice_runs_the_function_once(bench: Bench) -> None:
    work, runs = bench.enqueue(), []
    for _ in range(2):
        bench.run(work, lambda context: runs.append(context.id))
    assert runs == [work.id]


def test_19_a_message_before_its_time_runs_nothing(bench: Bench) -> None:
    work, runs = bench.enqueue(interval_ms=3_600_000), []
    bench.run(work, lambda context: runs.append(1))
    settled = bench.run(work, lambda context: runs.append(2))
    assert (settled.kind, runs, bench.row(work).state) == ("not-claimed", [1], "ENQUEUED")


def test_24_a_constraint_lost_stops_the_run_with_its_reason_and_keeps_the_attempt(bench: Bench) -> None:
    work = bench.enqueue(requires=frozenset({"charging"}))
    lose_charging(bench, work)
    row = bench.row(work)
    assert (row.state, row.stop_reason, row.attempt) == ("ENQUEUED", "CONSTRAINT_CHARGING", 1)


@pytest.mark.parametrize("returned", [{"n": 1}, Result.failure(), Result.retry()])
def test_25_what_is_returned_after_a_stop_is_ignored(bench: Bench, returned: Any) -> None:
    work = bench.enqueue(requires=frozenset({"charging"}))
    lose_charging(bench, work, returned)
    row = bench.row(work)
    assert (row.state, row.output, row.last_outcome, row.retries) == ("ENQUEUED", None, "stopped", 0)


def test_26_it_runs_at_once_when_the_constraint_returns(bench: Bench) -> None:
    work = bench.enqueue(requires=frozenset({"charging"}))
    bench.clock.advance(3_600_000)
    lose_charging(bench, work)
    bench.switch("charging", True)
    assert bench.run(work, lambda context: {"attempt": context.attempt}).kind == "done"
    assert bench.row(work).output == {"attempt": 1}


def test_30_a_run_beyond_its_limit_is_stopped_with_timeout_and_waits_again(bench: Bench) -> None:
    work = bench.enqueue()

    def body(context: Context) -> None:
        bench.clock.advance(599_999)
        context.check()
        bench.clock.advance(1)
        context.check(force=True)

    settled = bench.run(work, body)
    assert (settled.kind, settled.reason, bench.row(work).state) == ("stopped", "TIMEOUT", "ENQUEUED")


def test_38_an_exception_fails_one_time_work_without_a_retry(bench: Bench, told: Any) -> None:
    work = bench.enqueue()
    bench.run(work, raising(ValueError("oh")))
    row = bench.row(work)
    assert (row.state, row.attempt, row.last_error) == ("FAILED", 1, "ValueError: oh")
    assert told == [(work.id, "ValueError")]


def test_39_the_function_counts_from_0_and_the_row_from_1(bench: Bench) -> None:
    work, seen = bench.enqueue(), []

    def body(context: Context) -> Result:
        seen.append((context.attempt, bench.row(work).attempt))
        return Result.retry()

    bench.run(work, body)
    bench.clock.advance(30_000)
    bench.run(work, body)
    assert seen == [(0, 1), (1, 2)]


def test_42_a_function_that_is_not_there_fails_the_work_and_the_hook_is_called(bench: Bench, told: Any) -> None:
    work = bench.enqueue(task="shop.nothing")
    settled = bench.run(work, lambda context: registered(context.work.task).function(context))
    assert (settled.kind, bench.row(work).state) == ("failed", "FAILED")
    assert "[work] modules" in settled.reason
    assert told == [(work.id, "WorkerUnknown")]
