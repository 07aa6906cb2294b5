"""Periodic work as a value: its interval and flex, raised and cut as WorkManager does it, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backhaul.backoff import Backoff
from backhaul.errors import Misused
from backhaul.work import Constraints, Context, PeriodicWork, WorkAdjusted, worker

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


@worker("tests.periodic.tidy")
def tidy(context: Context) -> None:
    pass


def test_an_interval_below_fifteen_minutes_is_raised_with_a_warning() -> None:
    with pytest.warns(WorkAdjusted, match="every is 0:01:00, and its minimum is 0:15:00") as caught:
        work = PeriodicWork(tidy, every=MINUTE)
    assert work.request.interval_ms == 900_000
    assert (len(caught), Path(caught[0].filename).name) == (1, Path(__file__).name)


def test_flex_is_kept_between_five_minutes_and_the_interval() -> None:
    with pytest.warns(WorkAdjusted, match="flex is 0:01:00, and its minimum is 0:05:00"):
        assert PeriodicWork(tidy, every=HOUR, flex=MINUTE).request.flex_ms == 300_000
    with pytest.warns(WorkAdjusted, match="flex is 2:00:00, and its maximum is 1:00:00"):
        assert PeriodicWork(tidy, every=HOUR, flex=2 * HOUR).request.flex_ms == 3_600_000
    assert PeriodicWork(tidy, every=HOUR).request.flex_ms == 0


def test_who_knows_why_may_have_shorter_intervals() -> None:
    said = PeriodicWork(tidy, every=MINUTE, flex=timedelta(seconds=30), least_interval=timedelta(seconds=1)).request
    assert (said.interval_ms, said.flex_ms) == (60_000, 30_000)


def test_everything_that_is_asked_for_is_said_to_the_ledger() -> None:
    said = PeriodicWork(
        tidy,
        every=HOUR,
        input={"a": 1},
        constraints=Constraints(network="unmetered"),
        tags={"nightly"},
        initial_delay=MINUTE,
        next_run_at=datetime(2026, 1, 2, 12, tzinfo=UTC),
        max_attempts=3,
        id="tidy",
    ).request
    assert (said.task, said.id, said.interval_ms, said.initial_delay_ms) == (
        "tests.periodic.tidy",
        "tidy",
        3_600_000,
        60_000,
    )
    assert (said.override_at, said.max_attempts, said.requires) == (1_767_355_200_000, 3, {"connected", "unmetered"})


def test_a_plain_celery_task_may_be_periodic() -> None:
    said = PeriodicWork.of_task("shop.tidy", [1], every=HOUR).request
    assert (said.task, said.function, said.input) == ("backhaul.task", "shop.tidy", {"args": [1], "kwargs": {}})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"every": 3600}, "every is 3600"),
        ({"every": timedelta(days=5_000)}, "every is 5000 days"),
        ({"flex": 5}, "flex is 5"),
        ({"flex": -MINUTE}, "flex is -1 day"),
        ({"initial_delay": timedelta(days=3_660)}, "begin in more than ten years"),
        ({"next_run_at": datetime(2026, 1, 2)}, "next_run_at is"),
        ({"expedited": "drop"}, "cannot be expedited"),
        ({"backoff": Backoff(), "constraints": Constraints(device_idle=True)}, "no backoff"),
        ({"input": {"text": "x" * 10_240}}, "10251 bytes"),
        ({"tags": "nightly"}, "tags is 'nightly'"),
    ],
    ids=lambda value: str(value)[:70],
)
def test_periodic_work_that_makes_no_sense_is_refused_with_a_hint(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(Misused, match=said) as caught:
        PeriodicWork(tidy, **{"every": HOUR, **wrong})
    assert caught.value.hint
