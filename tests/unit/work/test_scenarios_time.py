"""WorkManager's behaviour, by the numbers of the conformance list: time and states."""

from __future__ import annotations

from datetime import timedelta

import pytest

from backhaul.errors import Misused
from backhaul.work import OneTimeWork, PeriodicWork, Result, Work, WorkAdjusted, hooks, ledger
from backhaul.work.context import Context
from tests.unit.work.desk import HOUR, MINUTE, Desk, failing

ONE_HOUR = timedelta(hours=1)


def hourly(**asked: object) -> PeriodicWork:
    return PeriodicWork("shop.tidy", every=ONE_HOUR, **asked)  # type: ignore[arg-type]


def test_scenario_1_a_one_time_work_runs_once_and_succeeds_with_attempt_1(desk: Desk) -> None:
    work = OneTimeWork("shop.mail")
    assert desk.works.enqueue(work).ids == (work.id,)
    assert desk.run_due() == [work.id]
    assert desk.run_due() == []
    assert (desk.state(work), desk.row(work).attempt) == ("SUCCEEDED", 1)


def test_scenario_2_an_initial_delay_is_waited_for_to_the_second(desk: Desk) -> None:
    work = OneTimeWork("shop.mail", initial_delay=timedelta(seconds=60))
    desk.works.enqueue(work)
    desk.clock.advance(59_000)
    assert (desk.run_due(), desk.run(work).kind, desk.state(work)) == ([], "not-claimed", "ENQUEUED")
    desk.clock.advance(1_000)
    assert desk.run_due() == [work.id]


def test_scenario_3_a_delay_that_no_clock_can_hold_is_refused_when_built() -> None:
    with pytest.raises(Misused, match="initial_delay"):
        OneTimeWork("shop.mail", initial_delay=timedelta.max)


def test_scenario_4_an_interval_below_15_minutes_is_raised_with_a_warning() -> None:
    with pytest.warns(WorkAdjusted, match="every"):
        work = PeriodicWork("shop.tidy", every=timedelta(minutes=1))
    assert work.request.interval_ms == 15 * MINUTE


@pytest.mark.parametrize(("said", "stored"), [(timedelta(minutes=1), 5 * MINUTE), (timedelta(hours=2), HOUR)])
def test_scenario_5_flex_is_kept_between_5_minutes_and_the_interval(said: timedelta, stored: int) -> None:
    with pytest.warns(WorkAdjusted, match="flex"):
        assert hourly(flex=said).request.flex_ms == stored


def test_scenario_6_without_flex_the_first_run_is_at_once(desk: Desk) -> None:
    work = hourly()
    desk.works.enqueue(work)
    assert desk.run_due() == [work.id]


def test_scenario_7_with_flex_the_first_run_is_in_the_last_part_of_the_interval(desk: Desk) -> None:
    work = hourly(flex=timedelta(minutes=15))
    desk.works.enqueue(work)
    desk.clock.advance(45 * MINUTE - 1)
    assert desk.run_due() == []
    desk.clock.advance(1)
    assert desk.run_due() == [work.id]


def test_scenario_8_flex_moves_the_first_run_alone(desk: Desk) -> None:
    work = hourly(flex=timedelta(minutes=15))
    desk.works.enqueue(work)
    desk.clock.advance(50 * MINUTE)
    desk.run_due()
    assert desk.row(work).due_at == desk.now + HOUR


def test_scenario_9_the_interval_counts_from_the_end_of_a_run(desk: Desk) -> None:
    work, began = hourly(), desk.now
    desk.works.enqueue(work)
    desk.run(work, lambda context: desk.clock.advance(10 * MINUTE) and None)
    assert desk.row(work).due_at == began + 70 * MINUTE


def test_scenario_10_a_failure_closes_the_period(desk: Desk) -> None:
    work = hourly()
    desk.works.enqueue(work)
    desk.run(work, failing)
    row = desk.row(work)
    assert (row.state, row.attempt, row.due_at, row.runs) == ("ENQUEUED", 0, desk.now + HOUR, 1)


def test_scenario_11_an_exception_closes_the_period_and_the_hook_is_told(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(hooks, "_hooks", {})

    @hooks.on_exception
    def tell(work: Work, error: Exception) -> None:
        told.append((work.id, str(error)))

    def raises(context: Context) -> None:
        raise ValueError("no such customer")

    work = hourly()
    desk.works.enqueue(work)
    desk.run(work, raises)
    row = desk.row(work)
    assert (row.state, row.attempt, row.due_at) == ("ENQUEUED", 0, desk.now + HOUR)
    assert told == [(work.id, "no such customer")]


def test_scenario_12_the_output_of_a_period_is_not_kept(desk: Desk) -> None:
    work = hourly()
    desk.works.enqueue(work)
    desk.run(work, lambda context: Result.success({"pages": 3}))
    assert desk.row(work).output is None


def test_scenario_17_only_waiting_work_has_a_next_time(desk: Desk) -> None:
    work, waiting = OneTimeWork("shop.mail"), OneTimeWork("shop.mail", initial_delay=ONE_HOUR)
    desk.works.enqueue([work, waiting])
    assert desk.row(work).next_run_at == desk.now
    run = desk.claim(work)
    assert run.next_run_at is None
    assert desk.settle(ledger.succeed, run).next_run_at is None
    desk.works.cancel(waiting.id)
    assert desk.row(waiting).next_run_at is None


def test_scenario_18_a_message_that_comes_twice_is_one_run(desk: Desk) -> None:
    work = OneTimeWork("shop.mail")
    desk.works.enqueue(work)
    kinds = [desk.run(work).kind, desk.run(work).kind]
    assert (kinds, desk.ran) == (["done", "not-claimed"], [work.id])


def test_scenario_19_a_message_before_its_time_runs_nothing(desk: Desk) -> None:
    work = hourly()
    desk.works.enqueue(work)
    desk.run(work)
    assert desk.run(work).kind == "not-claimed"
    assert (desk.ran, desk.state(work)) == ([work.id], "ENQUEUED")
