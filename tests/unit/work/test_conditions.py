from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import func, select

from backhaul.database import Database
from backhaul.errors import ConfigurationInvalid, Misused
from backhaul.schema import condition
from backhaul.work import conditions
from backhaul.work.conditions import KNOWN, Condition, effective
from backhaul.work.reading import STALE_MS, Answer, Reading


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


def reading(name: str, answer: Answer, *, read_at: int = 1_000) -> Reading:
    return Reading(name=name, answer=answer, since=500, read_at=read_at, source="NetworkManager", detail="wlan0")


def test_a_probe_goes_before_the_default_and_every_word_of_a_person_goes_before_it() -> None:
    readings = {name: reading(name, "no") for name in ("connected", "unmetered", "charging")}
    override = Condition(name="unmetered", value=True, source="override", since=1)
    held = effective({"charging": True}, {}, {"unmetered": override}, readings=readings, now=1_500)
    seen = {"answer": "no", "read_at": 1_000}
    assert held["connected"] == Condition(
        name="connected", value=False, source="probe", since=500, by="NetworkManager", detail="wlan0", **seen
    )
    assert held["unmetered"] == replace(override, **seen)
    assert held["charging"] == Condition(name="charging", value=True, source="configured", **seen)
    assert held["not_roaming"] == Condition(name="not_roaming", value=True)


def test_unknown_is_taken_as_the_default_or_as_the_settings_say() -> None:
    readings = {name: reading(name, "unknown") for name in ("connected", "device_idle")}
    held = effective({}, {}, {}, readings=readings, unknown={"device_idle": False, "charging": False}, now=1_500)
    assert {name for name, one in held.items() if not one.value} == {"device_idle", "charging", "metered"}
    assert {held[name].source for name in held} == {"default"}
    assert (held["device_idle"].answer, held["charging"].answer) == ("unknown", None)
    assert held["device_idle"].who == "default, unknown to NetworkManager: wlan0"


def test_a_reading_that_is_too_old_is_unknown_and_says_so() -> None:
    readings = {"connected": reading("connected", "no")}
    at_last = effective({}, {}, {}, readings=readings, now=1_000 + STALE_MS)["connected"]
    assert (at_last.value, at_last.answer) == (False, "no")
    too_old = effective({}, {}, {}, readings=readings, now=1_001 + STALE_MS)["connected"]
    assert (too_old.value, too_old.answer, too_old.since) == (True, "unknown", 1_000 + STALE_MS)
    assert "it was no then" in too_old.who


def test_what_is_said_of_a_node_holds_there_alone_and_goes_before_what_is_said_of_all(database: Database) -> None:
    with database.writing() as connection:
        conditions.set_condition(connection, "charging", False, now=1_000)
        conditions.set_condition(connection, "charging", True, now=2_000, node="kiosk")
        assert not conditions.overrides(connection, 3_000, "attic")["charging"].value
        held = conditions.overrides(connection, 3_000, "kiosk")["charging"]
        assert (held.value, held.node, held.since) == (True, "kiosk", 2_000)
        assert not conditions.clear_condition(connection, "charging", node="attic")
        assert conditions.clear_condition(connection, "charging", node="kiosk")
        assert not conditions.overrides(connection, 3_000, "kiosk")["charging"].value


def test_an_override_goes_before_what_a_program_has_published_also_of_all_nodes(database: Database) -> None:
    with database.writing() as connection:
        conditions.set_condition(connection, "charging", False, now=1_000, node="kiosk", source="published")
        conditions.set_condition(connection, "charging", True, now=2_000)
        assert conditions.overrides(connection, 3_000, "kiosk")["charging"].source == "override"
        conditions.clear_condition(connection, "charging")
        assert conditions.overrides(connection, 3_000, "kiosk")["charging"].source == "published"
        assert conditions.clear_condition(connection, "charging", node="kiosk", source="published")
        assert conditions.overrides(connection, 3_000, "kiosk") == {}


def test_saying_it_again_of_all_nodes_is_one_row(database: Database) -> None:
    with database.writing() as connection:
        for now in (1_000, 2_000):
            conditions.set_condition(connection, "charging", False, now=now)
        assert connection.scalar(select(func.count()).select_from(condition)) == 1


def test_words_whose_time_is_over_are_forgotten(database: Database) -> None:
    with database.writing() as connection:
        conditions.set_condition(connection, "charging", False, now=1_000)
        conditions.set_condition(connection, "unmetered", False, now=1_000, expires_at=2_000)
        assert conditions.forget_expired(connection, 1_999) == 0
        assert conditions.forget_expired(connection, 2_000) == 1
        assert connection.scalars(select(condition.c.name)).all() == ["charging"]
