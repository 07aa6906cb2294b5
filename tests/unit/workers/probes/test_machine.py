from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config.settings import PROBED
from tests.probed import FakeProbe, FrozenClock, settings
from workers.probes.machine import Machine
from workers.probes.storage import places_of


class Two:
    """A machine with two fake probes, and how often it has woken the worker."""

    def __init__(self, home: Path, clock: FrozenClock, environment: dict[str, str], **sections: Any) -> None:
        self.clock = clock
        self.wakes = 0
        self.network: FakeProbe
        self.power: FakeProbe
        said = settings(home, **sections)
        self.machine = Machine(said, clock, environment=environment, probes=self._probes)

    def _probes(self, heard: Callable[[], None]) -> list[FakeProbe]:
        self.network = FakeProbe("connected", "unmetered", clock=self.clock, heard=heard)
        self.power = FakeProbe("charging", clock=self.clock, heard=heard)
        return [self.network, self.power]

    def start(self) -> None:
        self.machine.start(self._wake)

    def _wake(self) -> None:
        self.wakes += 1

    def answers(self) -> dict[str, str]:
        return {name: reading.answer for name, reading in self.machine.readings().items()}


@pytest.fixture
def two(tmp_path: Path, clock: FrozenClock) -> Two:
    made = Two(tmp_path, clock, {})
    made.network.reads(connected="yes", unmetered="no")
    made.start()
    return made


def test_every_condition_of_its_probes_has_a_reading(two: Two, clock: FrozenClock) -> None:
    assert two.answers() == {"connected": "yes", "unmetered": "no", "charging": "unknown"}
    reading = two.machine.readings()["connected"]
    assert (reading.since, reading.read_at) == (clock.now(), clock.now())
    assert (reading.source, reading.detail) == ("the test", "as it says")


def test_the_worker_is_woken_when_an_answer_has_become_another_and_not_otherwise(two: Two, clock: FrozenClock) -> None:
    two.power.reads(charging="yes")
    assert two.wakes == 1
    since = clock.now()
    clock.advance(1_000)
    two.power.reads(charging="yes")
    two.machine.look(clock.now())
    assert two.wakes == 1
    assert two.machine.readings()["charging"].since == since
    assert two.machine.readings()["charging"].read_at == clock.now()


def test_what_flips_is_damped_and_the_lookout_sees_it_hold(two: Two, clock: FrozenClock) -> None:
    for answer in ("yes", "no", "yes", "no", "yes"):
        two.power.reads(charging=answer)  # type: ignore[arg-type]
    assert two.answers()["charging"] == "no"
    assert "must hold for 2 s" in two.machine.readings()["charging"].detail
    wakes = two.wakes
    clock.advance(2_000)
    two.machine.look(clock.now())
    assert two.answers()["charging"] == "yes"
    assert two.wakes == wakes + 1


@pytest.mark.parametrize(
    ("environment", "sections"),
    [
        ({"BACKHAUL_CONDITION_CHARGING": "on"}, {}),
        ({}, {"conditions": {"charging": True}}),
        ({}, {"probes": {"on": ["connected", "unmetered"]}}),
    ],
)
def test_what_is_said_is_not_probed(
    tmp_path: Path, clock: FrozenClock, environment: dict[str, str], sections: dict[str, Any]
) -> None:
    made = Two(tmp_path, clock, environment, **sections)
    made.start()
    made.power.reads(charging="no")
    assert set(made.answers()) == {"connected", "unmetered"}


def test_with_no_probe_on_nothing_is_begun(tmp_path: Path, clock: FrozenClock) -> None:
    before = threading.active_count()
    machine = Machine(settings(tmp_path, probes={"on": []}), clock, environment={})
    machine.start(lambda: None)
    machine.look(clock.advance(60_000))
    assert threading.active_count() == before
    assert machine.readings() == {}
    machine.end()


def test_after_the_end_nobody_is_woken(two: Two, clock: FrozenClock) -> None:
    two.machine.end()
    wakes = two.wakes
    two.power.reads(charging="yes")
    two.machine.look(clock.advance(60_000))
    assert two.wakes == wakes


def test_all_conditions_that_are_probed_have_a_probe(
    tmp_path: Path, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one without a bus says no more than it knows."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    machine = Machine(settings(tmp_path), clock, environment={})
    machine.start(lambda: None)
    readings = machine.readings()
    machine.end()
    assert set(readings) == set(PROBED)
    assert {readings[name].answer for name in ("unmetered", "metered", "not_roaming")} == {"unknown"}
    assert readings["unmetered"].detail == "there is no D-Bus"
    assert readings["storage_not_low"].answer == "yes"


def test_storage_is_every_file_system_that_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    said = settings(tmp_path)
    assert places_of(said) == [tmp_path, tmp_path / ".backhaul", tmp_path]
    moved = said.model_copy(
        update={"replica": said.replica.model_copy(update={"database": "sqlite:///elsewhere/x.db"})}
    )
    assert places_of(moved)[0] == tmp_path / "elsewhere"
    remote = said.model_copy(update={"replica": said.replica.model_copy(update={"database": "postgresql://h/x"})})
    assert places_of(remote) == [tmp_path / ".backhaul", tmp_path]


def test_storage_is_low_when_less_is_free_than_was_set(tmp_path: Path, clock: FrozenClock) -> None:
    probes = {"on": ["storage_not_low"], "storage_floor": "1000000GB"}
    machine = Machine(settings(tmp_path, probes=probes), clock, environment={})
    machine.start(lambda: None)
    assert machine.readings()["storage_not_low"].answer == "no"
    machine.end()
