from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backhaul.bell import Queue
from backhaul.errors import Misused, WorkUnplaceable
from backhaul.work.conditions import KNOWN, Condition, effective
from backhaul.work.constraints import judge, place

SYNC = Queue(name="sync", tags=frozenset({"connected"}))
MEDIA = Queue(name="media", tags=frozenset({"connected", "unmetered", "charging", "storage_not_low"}))
BULK = Queue(name="bulk", tags=frozenset({"connected", "unmetered"}))
TAGS = st.frozensets(st.sampled_from([*KNOWN, "region:eu", "gpu:yes"]))


def test_every_tag_must_hold() -> None:
    held = effective({"unmetered": False}, {}, {})
    assert judge(["connected", "charging"], held, frozenset()).open
    verdict = judge(["connected", "unmetered"], held, frozenset())
    assert (verdict.open, verdict.reason) == (False, "unmetered is off (configured)")


def test_the_reason_names_the_condition_its_source_and_since_when() -> None:
    off = Condition(name="unmetered", value=False, source="override", since=1_767_323_045_000)
    verdict = judge(["unmetered"], effective({}, {}, {"unmetered": off}), frozenset())
    assert verdict.reason == "unmetered is off (override, since 2026-01-02T03:04:05Z)"


def test_metered_asks_for_a_metered_link() -> None:
    assert not judge(["metered"], effective({}, {}, {}), frozenset()).open


def test_a_label_must_be_this_machines() -> None:
    held = effective({}, {}, {})
    assert judge(["region:eu"], held, frozenset({"region:eu"})).open
    assert judge(["region:eu"], held, frozenset({"region:us"})).reason == "this machine is not labelled region:eu"


def test_a_tag_that_nobody_knows_is_refused() -> None:
    with pytest.raises(Misused, match="unmeterd"):
        judge(["unmeterd"], effective({}, {}, {}), frozenset())


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("unmetered", "CONSTRAINT_CONNECTIVITY"),
        ("connected", "CONSTRAINT_CONNECTIVITY"),
        ("charging", "CONSTRAINT_CHARGING"),
        ("battery_not_low", "CONSTRAINT_BATTERY_NOT_LOW"),
        ("device_idle", "CONSTRAINT_DEVICE_IDLE"),
        ("storage_not_low", "CONSTRAINT_STORAGE_NOT_LOW"),
        ("region:eu", "DEVICE_STATE"),
    ],
)
def test_a_lost_tag_is_called_as_workmanager_calls_it(tag: str, reason: str) -> None:
    everything_off = effective(dict.fromkeys(KNOWN, False), {}, {})
    assert judge([tag], everything_off, frozenset()).stop_reason == reason


def test_work_goes_to_the_smallest_queue_that_contains_what_it_requires() -> None:
    queues = [MEDIA, BULK, SYNC]
    assert place(queues, frozenset()) is SYNC
    assert place(queues, frozenset({"unmetered"})) is BULK
    assert place(queues, frozenset({"charging"})) is MEDIA


def test_of_equal_queues_the_one_declared_first_gets_the_work() -> None:
    twin = Queue(name="twin", tags=SYNC.tags)
    assert place([twin, SYNC], frozenset()) is twin
    assert place([SYNC, twin], frozenset()) is SYNC


def test_work_that_no_queue_can_serve_is_refused_with_the_fix() -> None:
    with pytest.raises(WorkUnplaceable, match="connected, device_idle") as caught:
        place([SYNC, MEDIA], frozenset({"connected", "device_idle"}))
    assert caught.value.hint is not None
    assert "add device_idle to the tags of queue sync" in caught.value.hint
    with pytest.raises(WorkUnplaceable, match="no queue is declared"):
        place([], frozenset())


@given(st.lists(TAGS, max_size=6), TAGS)
def test_a_placed_work_has_all_it_requires_and_no_smaller_queue_would_do(
    tags: list[frozenset[str]], requires: frozenset[str]
) -> None:
    queues = [Queue(name=str(number), tags=each) for number, each in enumerate(tags)]
    try:
        placed = place(queues, requires)
    except WorkUnplaceable:
        assert not any(queue.tags >= requires for queue in queues)
    else:
        assert placed.tags >= requires
        assert all(len(queue.tags) >= len(placed.tags) for queue in queues if queue.tags >= requires)
