"""WorkManager's behaviour, by the numbers of the conformance list: constraints, triggers, results and backoff."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from backhaul.backoff import Backoff
from backhaul.errors import Misused
from backhaul.work import Constraints, OneTimeWork, PeriodicWork, TableTrigger, WorkAdjusted, ledger
from tests.unit.work.desk import HOUR, MINUTE, Desk, again


def enqueued(desk: Desk, **constraints: Any) -> OneTimeWork:
    work = OneTimeWork("shop.mail", constraints=Constraints(**constraints))
    desk.works.enqueue(work)
    return work


def test_scenario_20_all_constraints_must_hold(desk: Desk) -> None:
    work = enqueued(desk, network="unmetered", charging=True)
    desk.switch("charging", False)
    desk.run_due()
    assert (desk.ran, desk.state(work)) == ([], "ENQUEUED")
    desk.switch("charging", True)
    desk.run_due()
    assert (desk.ran, desk.state(work)) == ([work.id], "SUCCEEDED")


def test_scenario_21_a_link_that_leads_nowhere_is_no_connection(desk: Desk) -> None:
    """What says so is the probe (tests/unit/workers/probes); here the condition is what counts, not the link."""
    work = enqueued(desk, network="connected")
    desk.switch("connected", False)
    desk.run_due()
    assert (desk.ran, desk.state(work)) == ([], "ENQUEUED")


def test_scenario_22_metered_demands_a_metered_link(desk: Desk) -> None:
    work = enqueued(desk, network="metered")
    desk.run_due()
    assert (desk.ran, desk.state(work)) == ([], "ENQUEUED")
    desk.switch("metered", True)
    desk.run_due()
    assert desk.ran == [work.id]


def test_scenario_23_a_machine_without_battery_has_no_low_one(desk: Desk) -> None:
    """The 15 per cent are the probe's to judge (tests/unit/workers/probes); here they are a condition."""
    first, second = enqueued(desk, battery_not_low=True), enqueued(desk, battery_not_low=True)
    desk.run(first)
    desk.switch("battery_not_low", False)
    desk.run(second)
    assert desk.ran == [first.id]
    desk.switch("battery_not_low", True)
    desk.run(second)
    assert desk.ran == [first.id, second.id]


def test_scenario_31_changes_without_a_pause_fire_at_the_longest_delay(desk: Desk) -> None:
    constraints = Constraints(
        triggers=(TableTrigger("photo"),),
        trigger_update_delay=timedelta(seconds=10),
        trigger_max_delay=timedelta(seconds=30),
    )
    work = OneTimeWork("shop.mail", constraints=constraints)
    desk.works.enqueue(work)
    desk.clock.advance(HOUR)
    assert desk.due() == []
    first = desk.now
    for number in range(6):
        desk.clock.time = first + number * 5_000
        with desk.database.writing() as connection:
            ledger.touch_tables(connection, [], desk.now, by_sync=["photo"])
        assert desk.due() == []
    assert desk.row(work).due_at == first + 30_000
    desk.clock.time = first + 30_000
    assert desk.run_due(lambda context: {"for": list(context.triggered)}) == [work.id]
    assert desk.row(work).output == {"for": ["photo"]}


def test_scenario_34_idle_work_has_no_backoff() -> None:
    with pytest.raises(Misused, match="idle"):
        OneTimeWork("shop.mail", constraints=Constraints(device_idle=True), backoff=Backoff())


def waits(desk: Desk, work: OneTimeWork, tries: int) -> list[int]:
    desk.works.enqueue(work)
    said = []
    for _ in range(tries):
        desk.run(work, again)
        said.append(desk.row(work).due_at - desk.now)
        desk.clock.advance(said[-1])
    return said


def test_scenario_35_the_default_backoff_doubles_from_30_seconds(desk: Desk) -> None:
    assert waits(desk, OneTimeWork("shop.mail"), 4) == [30_000, 60_000, 120_000, 240_000]


def test_scenario_36_a_linear_backoff_grows_by_its_step(desk: Desk) -> None:
    work = OneTimeWork("shop.mail", backoff=Backoff(policy="linear", initial_ms=10_000))
    assert waits(desk, work, 3) == [10_000, 20_000, 30_000]


def test_scenario_37_a_backoff_is_between_10_seconds_and_5_hours(desk: Desk) -> None:
    with pytest.warns(WorkAdjusted):
        short = OneTimeWork("shop.mail", backoff=Backoff(initial_ms=1_000))
    with pytest.warns(WorkAdjusted):
        long = OneTimeWork("shop.mail", backoff=Backoff(initial_ms=10 * HOUR, most_ms=20 * HOUR))
    assert (short.request.backoff.initial_ms, long.request.backoff.initial_ms) == (10_000, 5 * HOUR)
    assert max(waits(desk, short, 20)) == 5 * HOUR


def test_scenario_40_nothing_but_max_attempts_ends_the_tries(desk: Desk) -> None:
    endless = OneTimeWork("shop.mail")
    waits(desk, endless, 60)
    assert (desk.state(endless), desk.row(endless).attempt) == ("ENQUEUED", 60)
    thrice = OneTimeWork("shop.mail", max_attempts=3)
    waits(desk, thrice, 2)
    desk.run(thrice, again)
    assert desk.state(thrice) == "FAILED"


def test_scenario_41_a_success_ends_the_tries_of_a_period(desk: Desk) -> None:
    work = PeriodicWork("shop.tidy", every=timedelta(hours=1))
    desk.works.enqueue(work)
    for _ in range(2):
        desk.run(work, again)
        desk.clock.advance(2 * MINUTE)
    assert desk.row(work).attempt == 2
    desk.run(work)
    assert (desk.row(work).attempt, desk.row(work).due_at) == (0, desk.now + HOUR)
