from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backhaul.bell import Queue
from backhaul.errors import Misused, WorkUnplaceable
from backhaul.work import Context, worker
from backhaul.work.conditions import IMPLIED, KNOWN, Condition, effective
from backhaul.work.placing import judge, may_run, place, place_expedited

SYNC = Queue(name="sync", tags=frozenset({"connected"}))
MEDIA = Queue(name="media", tags=frozenset({"connected", "unmetered", "charging", "storage_not_low"}))
BULK = Queue(name="bulk", tags=frozenset({"connected", "unmetered"}))
TAGS = st.frozensets(st.sampled_from([*KNOWN, "region:eu", "gpu:yes"]))


def test_a_function_goes_where_it_is_designated_to_under_whichever_of_its_names() -> None:
    @worker("placing.render", formerly=["placing.draw"])
    def render(_: Context) -> None: ...

    new = Queue(name="new", tags=SYNC.tags, kinds=frozenset({"placing.render"}))
    old = Queue(name="old", tags=SYNC.tags, kinds=frozenset({"placing.draw"}))
    for queue in (new, old):
        for kind in ("placing.render", "placing.draw"):
            assert place([SYNC, queue], frozenset({"connected"}), kind) == queue
            assert not may_run([SYNC, queue], "sync", kind)


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


def test_a_pause_closes_whatever_is_asked_and_is_the_users_stop() -> None:
    paused = effective({"not_paused": False}, {}, {})
    for tags in ((), ("connected",), ("not_paused",)):
        verdict = judge(tags, paused, frozenset())
        assert (verdict.open, verdict.closed, verdict.stop_reason) == (False, ("not_paused",), "USER")
    assert place([MEDIA, SYNC], frozenset({"not_paused"})) is SYNC


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
    asked, requires = requires, requires - set(IMPLIED)
    try:
        placed = place(queues, asked)
    except WorkUnplaceable:
        assert not any(queue.tags >= requires for queue in queues)
    else:
        assert placed.tags >= requires.difference(IMPLIED)
        assert all(len(queue.tags) >= len(placed.tags) for queue in queues if queue.tags >= requires)


FILMS = Queue(name="films", tags=frozenset({"connected", "unmetered", "gpu:yes"}), kinds=frozenset({"shop.film"}))


def test_a_kind_that_a_queue_is_designated_for_goes_nowhere_else_and_other_kinds_go_as_ever() -> None:
    queues = [SYNC, BULK, FILMS]
    assert place(queues, frozenset({"connected"}), "shop.film") is FILMS
    assert place(queues, frozenset({"connected"}), "shop.note") is SYNC
    assert place([*queues, MEDIA], frozenset({"gpu:yes"}), "shop.note") is FILMS  # no kind is shut out
    with pytest.raises(WorkUnplaceable, match=r"shop\.film runs on films alone") as refusal:
        place([*queues, MEDIA], frozenset({"charging"}), "shop.film")
    assert "add charging to the tags of queue films" in str(refusal.value.hint)


def test_of_several_that_name_a_kind_the_smallest_is_taken_and_expedited_work_is_no_exception() -> None:
    small = Queue(name="small", tags=frozenset({"connected"}), kinds=FILMS.kinds)
    quick = Queue(name="quick", tags=frozenset({"connected"}), expedited=True)
    assert place([FILMS, small, SYNC], frozenset(), "shop.film") is small
    assert place_expedited([FILMS, quick], frozenset(), "shop.film") is FILMS
    assert place_expedited([FILMS, quick], frozenset(), "shop.note") is quick


def test_work_may_run_where_its_kind_may() -> None:
    queues = [SYNC, BULK, FILMS]
    assert may_run(queues, "films", "shop.film")
    assert not may_run(queues, "sync", "shop.film")
    assert not may_run(queues, "gone", "shop.film")
    assert may_run(queues, "sync", "shop.note")
    assert may_run([], "gone", "shop.film")
