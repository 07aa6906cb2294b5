"""One-time work as a value: what it says to the ledger, what is raised to a minimum, and what is refused at build."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backhaul.backoff import Backoff
from backhaul.errors import Misused
from backhaul.work import Constraints, Context, FileTrigger, OneTimeWork, TableTrigger, WorkAdjusted, worker

CHARGING = Constraints(charging=True)
IDLE = Constraints(device_idle=True)


@worker("tests.one_time.report")
def report(context: Context) -> None:
    pass


def undecorated(context: Context) -> None:
    pass


def test_everything_that_is_asked_for_is_said_to_the_ledger() -> None:
    work = OneTimeWork(
        report,
        input={"year": 2026},
        constraints=Constraints(network="connected", triggers=(TableTrigger("photo"),)),
        tags={"nightly"},
        initial_delay=timedelta(seconds=60),
        begin_at=datetime(2026, 1, 2, 12, tzinfo=UTC),
        backoff=Backoff(policy="linear", initial_ms=10_000, jitter=0.5),
        max_attempts=3,
        expires_after=timedelta(hours=1),
        backoff_on_stop=True,
        id="report-2026",
        merger="shop.sums",
    )
    said = work.request
    assert (said.task, said.function, said.id) == ("tests.one_time.report", None, "report-2026")
    assert (said.input, said.requires, said.tags) == ({"year": 2026}, {"connected"}, {"nightly"})
    assert (said.initial_delay_ms, said.begin_at) == (60_000, 1_767_355_200_000)
    assert (said.backoff.policy, said.backoff.initial_ms, said.backoff.jitter) == ("linear", 10_000, 0.5)
    assert (said.max_attempts, said.expires_after_ms, said.backoff_on_stop) == (3, 3_600_000, True)
    assert (said.triggers, said.trigger_update_ms) == ((TableTrigger("photo"),), 10_000)
    assert (said.interval_ms, said.expedited, said.merger) == (0, None, "shop.sums")


def test_a_fresh_id_each_time_and_none_of_them_is_dear() -> None:
    assert OneTimeWork(report).id != OneTimeWork(report).id
    assert len({OneTimeWork(report, id="one"), OneTimeWork(report, id="one")}) == 1


def test_the_work_is_not_changed_by_what_its_maker_does_later() -> None:
    given: dict[str, Any] = {"pages": [1]}
    work = OneTimeWork(report, input=given)
    given["pages"].append(2)
    assert work.input == work.request.input == {"pages": [1]}
    with pytest.raises(AttributeError):
        work.id = "another"  # type: ignore[misc]


def test_a_plain_celery_task_goes_by_its_name_with_its_arguments() -> None:
    said = OneTimeWork.of_task("shop.send-mail", [7], {"copy": True}, tags={"mail"}).request
    assert (said.task, said.function) == ("backhaul.task", "shop.send-mail")
    assert said.input == {"args": [7], "kwargs": {"copy": True}}
    assert said.tags == {"mail"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"initial_delay": timedelta(days=5_000)}, "initial_delay is 5000 days"),
        ({"initial_delay": timedelta.max}, "initial_delay is"),
        ({"initial_delay": timedelta(seconds=-1)}, "initial_delay is -1 day"),
        ({"initial_delay": 60}, "initial_delay is 60"),
        ({"begin_at": datetime(2026, 1, 2)}, "begin_at is"),
        ({"begin_at": "tomorrow"}, "begin_at is 'tomorrow'"),
        ({"begin_at": datetime(1901, 1, 1, tzinfo=UTC)}, "begin_at is 1901"),
        ({"expires_after": timedelta(0)}, "expire before it may begin"),
        ({"expires_after": timedelta(minutes=1), "initial_delay": timedelta(minutes=1)}, "expire before it may begin"),
        ({"max_attempts": 0}, "max_attempts is 0"),
        ({"max_attempts": "3"}, "max_attempts is '3'"),
        ({"tags": "nightly"}, "tags is 'nightly'"),
        ({"tags": {'a"b'}}, "is no tag"),
        ({"tags": {"x" * 201}}, "is no tag"),
        ({"tags": [7]}, "7 of tags is no text"),
        ({"id": "a b"}, "is no id"),
        ({"id": 7}, "7 is no id"),
        ({"input": [1]}, "input cannot be written"),
        ({"input": None}, "input cannot be written"),
        ({"input": {"text": "x" * 10_240}}, "10251 bytes"),
        ({"merger": "overwritin"}, "no merger 'overwritin'"),
        ({"merger": "rm -rf.sums"}, "no merger"),
        ({"backoff": 30}, "backoff is 30"),
        ({"backoff": Backoff(policy="sometimes")}, "no backoff 'sometimes'"),  # type: ignore[arg-type]
        ({"backoff": Backoff(), "constraints": IDLE}, "no backoff"),
        ({"expedited": "please"}, "expedited is 'please'"),
        ({"expedited": "drop", "initial_delay": timedelta(seconds=1)}, "cannot be delayed"),
        ({"expedited": "drop", "begin_at": datetime(2026, 1, 2, tzinfo=UTC)}, "cannot be delayed"),
        ({"expedited": "drop", "constraints": CHARGING}, "cannot wait for charging"),
        ({"expedited": "drop", "constraints": Constraints(battery_not_low=True)}, "cannot wait for battery_not_low"),
        ({"expedited": "drop", "constraints": IDLE}, "cannot wait for device_idle"),
        ({"expedited": "drop", "constraints": Constraints(triggers=(FileTrigger("/a"),))}, "cannot wait for triggers"),
    ],
    ids=lambda value: str(value)[:70],
)
def test_work_that_makes_no_sense_is_refused_with_the_field_and_a_hint(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(Misused, match=said) as caught:
        OneTimeWork(report, **wrong)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["", "rm -rf", "two words", 7, undecorated])
def test_what_is_no_worker_function_is_refused(name: Any) -> None:
    with pytest.raises(Misused, match=r"worker function|Celery task") as caught:
        OneTimeWork(name)
    assert caught.value.hint


@pytest.mark.parametrize("plain_task", [False, True])
def test_backhauls_own_work_is_not_for_the_host_to_enqueue(plain_task: bool) -> None:
    with pytest.raises(Misused, match="Backhaul's own"):
        OneTimeWork("backhaul.push", plain_task=plain_task)


def test_expedited_work_goes_with_a_network_storage_and_labels() -> None:
    asked = Constraints(network="unmetered", storage_not_low=True, labels=frozenset({"region:eu"}))
    assert OneTimeWork(report, expedited="run_as_ordinary", constraints=asked).request.expedited == "run_as_ordinary"


def test_a_backoff_is_kept_between_ten_seconds_and_five_hours() -> None:
    assert OneTimeWork(report).request.backoff == Backoff(policy="exponential", initial_ms=30_000, most_ms=18_000_000)
    with pytest.warns(WorkAdjusted, match="backoff.initial_ms is 0:00:01, and its minimum is 0:00:10") as caught:
        low = OneTimeWork(report, backoff=Backoff(initial_ms=1_000)).request.backoff
    assert Path(caught[0].filename).name == Path(__file__).name
    with pytest.warns(WorkAdjusted, match="maximum is 5:00:00"):
        high = OneTimeWork(report, backoff=Backoff(initial_ms=36_000_000, most_ms=36_000_000)).request.backoff
    assert (low.initial_ms, high.initial_ms, high.most_ms) == (10_000, 18_000_000, 18_000_000)
    assert max(high.delay_ms(tries) for tries in range(1, 60)) == 18_000_000


def test_waits_double_or_grow_by_as_much_each_time() -> None:
    doubling = OneTimeWork(report).request.backoff
    assert [doubling.delay_ms(tries) for tries in (1, 2, 3, 4)] == [30_000, 60_000, 120_000, 240_000]
    linear = OneTimeWork(report, backoff=Backoff(policy="linear", initial_ms=10_000)).request.backoff
    assert [linear.delay_ms(tries) for tries in (1, 2, 3)] == [10_000, 20_000, 30_000]
