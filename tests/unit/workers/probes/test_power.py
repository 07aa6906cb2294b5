from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from backhaul.work.reading import Answer
from tests.probed import FrozenClock
from tests.unit.workers.probes.conftest import KnownBus
from tests.waiting import eventually
from workers.probes import power
from workers.probes.power import DISPLAY, UPOWER, Power, Supply, read_supply, supply_of

MOUSE = {"type": "Battery", "scope": "Device", "status": "Discharging", "capacity": "5"}


def supplies(folder: Path, **devices: dict[str, str]) -> Supply:
    for name, files in devices.items():
        (folder / name).mkdir()
        for file, text in files.items():
            (folder / name / file).write_text(f"{text}\n")
    return supply_of(folder)


def upowered(bus: KnownBus, clock: FrozenClock, *, on_battery: bool = False, **device: Any) -> dict[str, Answer]:
    bus.known = {UPOWER: {"OnBattery": on_battery}, DISPLAY: device}
    probe = Power(bus, low=15, ok=20, clock=clock, heard=lambda: None)
    return {said.name: said.answer for said in probe.said(clock.now())}


def test_no_battery_is_mains(tmp_path: Path, bus: KnownBus, clock: FrozenClock) -> None:
    mains = Supply(battery=False, plugged=True, percent=None, source="sysfs")
    assert supplies(tmp_path) == mains
    assert supplies(tmp_path, mouse=MOUSE) == mains
    both = {"charging": "yes", "battery_not_low": "yes"}
    assert upowered(bus, clock, IsPresent=False, Type=0, Percentage=0.0) == both
    assert upowered(bus, clock) == both


def test_a_display_device_that_answers_late_is_no_machine_without_a_battery(bus: KnownBus, clock: FrozenClock) -> None:
    bus.known = {UPOWER: {"OnBattery": True}}
    supply = Supply(battery=True, plugged=False, percent=4, source="sysfs")
    probe = Power(bus, low=15, ok=20, clock=clock, heard=lambda: None, read=lambda: supply)
    assert [said.answer for said in probe.said(clock.now())] == ["unknown", "unknown"]
    probe.look(clock.now())
    eventually(probe.settled)
    assert [(said.answer, said.source) for said in probe.said(clock.now())] == [("no", "sysfs"), ("no", "sysfs")]
    clock.advance(60_001)
    assert [said.answer for said in probe.said(clock.now())] == ["unknown", "unknown"]


@pytest.mark.parametrize(("percent", "wanted"), [(15.0, "no"), (16.0, "yes"), (100.0, "yes"), (0.0, "no")])
def test_upowers_level(bus: KnownBus, clock: FrozenClock, percent: float, wanted: Answer) -> None:
    said = upowered(bus, clock, on_battery=True, IsPresent=True, Type=2, Percentage=percent)
    assert said == {"charging": "no", "battery_not_low": wanted}


def test_a_low_battery_is_low_until_it_is_clearly_not(bus: KnownBus, clock: FrozenClock) -> None:
    probe = Power(bus, low=15, ok=20, clock=clock, heard=lambda: None)
    seen = []
    for percent in (16, 15, 16, 19, 20, 16):
        bus.known = {UPOWER: {"OnBattery": True}, DISPLAY: {"IsPresent": True, "Type": 2, "Percentage": percent}}
        seen.append(probe.said(clock.now())[1].answer)
    assert seen == ["yes", "no", "no", "no", "yes", "yes"]


@pytest.mark.parametrize(
    ("line", "battery", "plugged"),
    [
        ({"type": "Mains", "online": "1"}, {"status": "Charging"}, True),
        ({"type": "Mains", "online": "1"}, {"status": "Not charging"}, True),
        ({"type": "Mains", "online": "0"}, {"status": "Discharging"}, False),
        ({"type": "Mains", "online": "0"}, {"status": "Unknown"}, False),
        ({"type": "USB", "online": "1"}, {"status": "Discharging"}, True),
        ({}, {"status": "Full"}, True),
        ({}, {"status": "Discharging"}, False),
        ({}, {"status": "Unknown"}, None),
    ],
)
def test_plugged_in_by_the_kernels_files(
    tmp_path: Path, line: dict[str, str], battery: dict[str, str], plugged: bool | None
) -> None:
    found = supplies(tmp_path, AC=line, BAT0={"type": "Battery", "capacity": "50"} | battery, mouse=MOUSE)
    assert found == Supply(battery=True, plugged=plugged, percent=50, source="sysfs")


def test_two_batteries_are_one(tmp_path: Path) -> None:
    small = {"type": "Battery", "status": "Discharging", "energy_now": "0", "energy_full": "10000000"}
    large = {"type": "Battery", "status": "Discharging", "energy_now": "27000000", "energy_full": "30000000"}
    assert supplies(tmp_path, BAT0=small, BAT1=large).percent == 67.5


def test_batteries_that_say_only_percents(tmp_path: Path) -> None:
    one, other = ({"type": "Battery", "capacity": text} for text in ("40", "60"))
    assert supplies(tmp_path, BAT0=one, BAT1=other, BAT2={"type": "Battery", "present": "0"}).percent == 50


def test_a_battery_that_says_nothing_is_unknown(bus: KnownBus, clock: FrozenClock, tmp_path: Path) -> None:
    found = supplies(tmp_path, BAT0={"type": "Battery"})
    probe = Power(bus, low=15, ok=20, clock=clock, heard=lambda: None, read=lambda: found)
    probe.look(clock.now())
    eventually(probe.settled)
    assert {said.answer for said in probe.said(clock.now())} == {"unknown"}


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (None, Supply(battery=False, plugged=True, percent=None, source="psutil")),
        (
            SimpleNamespace(percent=14.2, power_plugged=False),
            Supply(battery=True, plugged=False, percent=14.2, source="psutil"),
        ),
    ],
)
def test_where_the_kernel_has_no_such_files_psutil_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: object, wanted: Supply
) -> None:
    monkeypatch.setattr(power, "SUPPLIES", tmp_path / "none")
    monkeypatch.setattr(psutil, "sensors_battery", lambda: found, raising=False)
    assert read_supply() == wanted


def test_a_system_that_psutil_knows_nothing_of_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(power, "SUPPLIES", tmp_path / "none")
    monkeypatch.delattr(psutil, "sensors_battery", raising=False)
    assert read_supply() is None
