from __future__ import annotations

import pytest

from backhaul.database import Database
from backhaul.errors import ConfigurationInvalid, Misused
from backhaul.work import conditions
from backhaul.work.conditions import KNOWN, Condition, effective


def test_what_comes_later_goes_before_what_was_said_earlier() -> None:
    override = Condition(name="charging", value=False, source="override", since=1)
    held = effective(
        {"unmetered": False, "device_idle": False, "charging": True},
        {"BACKHAUL_CONDITION_DEVICE_IDLE": "on", "PATH": "/bin"},
        {"charging": override},
    )
    assert (held["connected"].value, held["connected"].source) == (True, "default")
    assert (held["metered"].value, held["metered"].source) == (False, "default")
    assert (held["unmetered"].value, held["unmetered"].source) == (False, "configured")
    assert (held["device_idle"].value, held["device_idle"].source) == (True, "environment")
    assert held["charging"] is override
    assert held.keys() == KNOWN.keys()


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    for ask in (
        lambda: effective({"unmeterd": True}, {}, {}),
        lambda: effective({}, {"BACKHAUL_CONDITION_UNMETERD": "on"}, {}),
        lambda: conditions.known_condition("UNMETERED"),
    ):
        with pytest.raises(Misused, match="storage_not_low") as caught:
            ask()
        assert caught.value.hint == "did you mean unmetered?"


def test_an_environment_that_says_neither_on_nor_off_is_refused() -> None:
    with pytest.raises(ConfigurationInvalid, match="BACKHAUL_CONDITION_CHARGING: 'maybe'"):
        effective({}, {"BACKHAUL_CONDITION_CHARGING": "maybe"}, {})


@pytest.mark.parametrize(("text", "value"), [("ON", True), ("yes", True), (" 1 ", True), ("Off", False), ("no", False)])
def test_on_and_off_may_be_said_as_people_say_them(text: str, value: bool) -> None:
    assert conditions.spoken_value(text) is value


def test_an_override_holds_until_it_is_cleared(database: Database) -> None:
    with database.writing() as connection:
        conditions.set_condition(connection, "unmetered", False, now=1_000)
        assert conditions.overrides(connection, 2_000) == {
            "unmetered": Condition(name="unmetered", value=False, source="override", since=1_000)
        }
        assert conditions.clear_condition(connection, "unmetered")
        assert not conditions.clear_condition(connection, "unmetered")
        assert conditions.overrides(connection, 2_000) == {}


def test_an_override_expires(database: Database) -> None:
    with database.writing() as connection:
        conditions.set_condition(connection, "charging", False, now=1_000, expires_at=2_000)
        assert "charging" in conditions.overrides(connection, 1_999)
        assert conditions.overrides(connection, 2_000) == {}


def test_saying_the_same_again_keeps_since_and_saying_otherwise_does_not(database: Database) -> None:
    with database.writing() as connection:
        conditions.set_condition(connection, "charging", False, now=1_000)
        assert conditions.set_condition(connection, "charging", False, now=2_000).since == 1_000
        assert conditions.set_condition(connection, "charging", True, now=3_000).since == 3_000
        conditions.set_condition(connection, "charging", True, now=4_000, expires_at=5_000)
        assert conditions.set_condition(connection, "charging", True, now=6_000).since == 6_000


def test_setting_an_unknown_condition_writes_nothing(database: Database) -> None:
    with database.writing() as connection:
        with pytest.raises(Misused):
            conditions.set_condition(connection, "online", True, now=1)
        assert conditions.overrides(connection, 1) == {}
