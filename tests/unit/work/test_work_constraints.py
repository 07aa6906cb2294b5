"""Constraints as a value: what each network demands, labels, triggers and bounds; nonsense is refused."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backhaul.errors import Misused
from backhaul.work import Constraints, FileTrigger, TableTrigger, WorkAdjusted

PHOTO = (TableTrigger("photo"),)


def test_nothing_is_demanded_by_default() -> None:
    assert Constraints().tags == frozenset()
    assert Constraints().trigger_update_ms is None
    assert Constraints().trigger_most_ms is None


@pytest.mark.parametrize(
    ("network", "tags"),
    [
        ("not_required", set()),
        ("connected", {"connected"}),
        ("unmetered", {"connected", "unmetered"}),
        ("temporarily_unmetered", {"connected", "unmetered"}),
        ("not_roaming", {"connected", "not_roaming"}),
        ("metered", {"connected", "metered"}),
    ],
)
def test_each_network_is_a_connected_one_and_metered_demands_a_metered_link(network: Any, tags: set[str]) -> None:
    assert Constraints(network=network).tags == tags


def test_conditions_and_labels_are_all_demanded() -> None:
    asked = Constraints(
        network="unmetered",
        charging=True,
        battery_not_low=True,
        device_idle=True,
        storage_not_low=True,
        labels=frozenset({"region:eu"}),
    )
    conditions = {"charging", "battery_not_low", "device_idle", "storage_not_low"}
    assert asked.tags == {"connected", "unmetered", "region:eu"} | conditions


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"network": "wifi"}, "no network 'wifi'"),
        ({"charging": "no"}, "charging is 'no'"),
        ({"labels": "region:eu"}, "labels is 'region:eu'"),
        ({"labels": {"eu"}}, "'eu' is no label"),
        ({"labels": {7}}, "7 of labels is no text"),
        ({"triggers": TableTrigger("photo")}, "triggers is TableTrigger"),
        ({"triggers": ("photo",)}, "'photo' is no trigger"),
        ({"triggers": (TableTrigger(""),)}, "is no trigger"),
        ({"triggers": (FileTrigger("photo.jpg"),)}, "is no trigger"),
        ({"trigger_update_delay": timedelta(seconds=5)}, "and no trigger"),
        ({"triggers": PHOTO, "trigger_update_delay": 5}, "trigger_update_delay is 5"),
        ({"triggers": PHOTO, "trigger_max_delay": timedelta(seconds=-1)}, "trigger_max_delay is -1 day"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_constraints_that_make_no_sense_are_refused_with_a_hint(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(Misused, match=said) as caught:
        Constraints(**wrong)
    assert caught.value.hint


def test_triggers_wait_ten_seconds_and_two_minutes_at_the_most_unless_told() -> None:
    assert (Constraints(triggers=PHOTO).trigger_update_ms, Constraints(triggers=PHOTO).trigger_most_ms) == (
        10_000,
        120_000,
    )
    slow = Constraints(triggers=PHOTO, trigger_update_delay=timedelta(minutes=5))
    assert (slow.trigger_update_ms, slow.trigger_most_ms) == (300_000, 300_000)


def test_trigger_delays_are_raised_to_their_minimum_with_one_warning_each() -> None:
    tiny = timedelta(milliseconds=1)
    with pytest.warns(WorkAdjusted) as caught:
        asked = Constraints(triggers=PHOTO, trigger_update_delay=tiny, trigger_max_delay=tiny)
    assert (asked.trigger_update_ms, asked.trigger_most_ms) == (500, 1_000)
    assert [str(one.message).split(" is ")[0] for one in caught] == ["trigger_update_delay", "trigger_max_delay"]
    assert {Path(one.filename).name for one in caught} == {Path(__file__).name}


def test_a_trigger_that_is_named_twice_is_one() -> None:
    folder = FileTrigger(Path("/data"), descendants=True)
    assert Constraints(triggers=(*PHOTO, folder, *PHOTO)).triggers == (TableTrigger("photo"), folder)


def test_constraints_are_values() -> None:
    one = Constraints(network="connected", labels=frozenset({"a:b"}))
    assert one == Constraints(network="connected", labels=frozenset({"a:b"}))
    assert len({one, Constraints(network="connected", labels=frozenset({"a:b"}))}) == 1
    with pytest.raises(AttributeError):
        one.charging = True  # type: ignore[misc]
