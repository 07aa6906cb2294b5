"""Power: whether the machine is plugged in, and whether its battery is low.

UPower is asked first. Without it, or while it does not say how the batteries are, Linux' own files are read, and
elsewhere psutil is asked. (psutil takes the battery of a mouse for the machine's, and the first of two for both; the
files say which is which.) A machine without a battery runs on mains: it is charging, and its battery is never low. A
battery that plays a part in nothing but a mouse or a headset is none of the machine's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from backhaul.clock import Clock
from backhaul.work.reading import Answer, is_stale
from workers.probes.aside import Aside
from workers.probes.bus import Bus
from workers.probes.hysteresis import Band
from workers.probes.probe import Said
from workers.probes.talk import Watched

UPOWER = Watched(
    service="org.freedesktop.UPower", path="/org/freedesktop/UPower", interface="org.freedesktop.UPower", starts=True
)
DISPLAY = Watched(
    service="org.freedesktop.UPower",
    path="/org/freedesktop/UPower/devices/DisplayDevice",  # all batteries of the machine as one
    interface="org.freedesktop.UPower.Device",
)
BATTERIES = (2, 3)  # UPower's types: a battery, a UPS
SUPPLIES = Path("/sys/class/power_supply")
LOOK_MS = 10_000


@dataclass(frozen=True, kw_only=True)
class Supply:
    """plugged: None when it is not known. percent: of the battery; None when there is none, or it does not say."""

    battery: bool
    plugged: bool | None
    percent: float | None
    source: str


class Power:
    """low, ok: percent; the battery is low from the one down, and no more from the other up."""

    names = ("charging", "battery_not_low")

    def __init__(
        self,
        bus: Bus,
        *,
        low: float,
        ok: float,
        clock: Clock,
        heard: Callable[[], None],
        read: Callable[[], Supply | None] | None = None,
    ) -> None:
        self._bus = bus
        self._band = Band(lost=low, regained=ok, at_first=True)
        self._aside: Aside[Supply] = Aside(read or read_supply, clock=clock, done=heard, name="power")

    def look(self, now: int) -> None:
        if self._upower() is None:
            self._aside.begin_if_due(now, LOOK_MS)

    def settled(self) -> bool:
        return self._bus.settled.is_set() and (self._upower() is not None or self._aside.settled)

    def said(self, now: int) -> list[Said]:
        supply, read_at = self._upower() or self._otherwise(now)
        if supply is None:
            return [Said(name=name, answer="unknown", read_at=now, source="none", detail=UNTOLD) for name in self.names]
        return [
            Said(name=name, answer=answer, read_at=read_at, source=supply.source, detail=detail)
            for name, (answer, detail) in (("charging", _charging(supply)), ("battery_not_low", self._level(supply)))
        ]

    def _upower(self) -> tuple[Supply, int] | None:
        found, display = self._bus.answer(UPOWER), self._bus.answer(DISPLAY)
        if found is None or display is None or "OnBattery" not in found.properties:
            return None
        device = display.properties
        battery = bool(device.get("IsPresent")) and device.get("Type") in BATTERIES
        supply = Supply(
            battery=battery,
            plugged=not found.properties["OnBattery"],
            percent=device.get("Percentage") if battery else None,
            source="UPower",
        )
        return supply, min(found.read_at, display.read_at)

    def _otherwise(self, now: int) -> tuple[Supply | None, int]:
        """What was read before UPower came is not how it is now that UPower is gone."""
        read_at = self._aside.read_at
        return (None if is_stale(read_at, now) else self._aside.found), read_at

    def _level(self, supply: Supply) -> tuple[Answer, str]:
        if supply.percent is not None:
            holds = self._band.holds(supply.percent)
            return "yes" if holds else "no", f"the battery is at {supply.percent:.0f} %"
        return ("unknown", "the battery does not say") if supply.battery else ("yes", MAINS)


UNTOLD = "nothing on this machine tells"
MAINS = "there is no battery"


def read_supply() -> Supply | None:
    """Without UPower."""
    return supply_of(SUPPLIES) if SUPPLIES.is_dir() else _by_psutil()


def supply_of(folder: Path) -> Supply:
    """As the kernel's files tell it (Linux, Documentation/ABI/testing/sysfs-class-power)."""
    devices = [_device(path) for path in sorted(folder.iterdir())]
    ours = [device for device in devices if device.get("scope") != "Device"]
    batteries = [one for one in ours if one.get("type") in ("Battery", "UPS") and one.get("present") != "0"]
    lines = [device["online"] for device in ours if device.get("type") != "Battery" and "online" in device]
    if not batteries:
        return Supply(battery=False, plugged=True, percent=None, source="sysfs")
    states = {device.get("status") for device in batteries}
    plugged = True if "1" in lines or states & {"Charging", "Full"} else False if "Discharging" in states else None
    if plugged is None and lines:
        plugged = False
    return Supply(battery=True, plugged=plugged, percent=_percent(batteries), source="sysfs")


def _by_psutil() -> Supply | None:
    read = getattr(psutil, "sensors_battery", None)
    if read is None:
        return None
    found = read()
    if found is None:
        return Supply(battery=False, plugged=True, percent=None, source="psutil")
    return Supply(battery=True, plugged=found.power_plugged, percent=found.percent, source="psutil")


def _charging(supply: Supply) -> tuple[Answer, str]:
    if supply.plugged is None:
        return "unknown", "the battery does not say"
    if not supply.plugged:
        return "no", "on battery"
    return "yes", "plugged in" if supply.battery else MAINS


def _percent(batteries: list[dict[str, str]]) -> float | None:
    """Of all together, by what they hold; by the mean of what they say where they do not say what they hold."""
    for now, full in (("energy_now", "energy_full"), ("charge_now", "charge_full")):
        with suppress(KeyError, ValueError, ZeroDivisionError):
            return 100 * sum(int(one[now]) for one in batteries) / sum(int(one[full]) for one in batteries)
    said = [int(one["capacity"]) for one in batteries if one.get("capacity", "").isdigit()]
    return sum(said) / len(said) if said else None


def _device(path: Path) -> dict[str, str]:
    """What its files say; those that are not there, or refuse to be read, are left out."""
    said = {}
    for name in FILES:
        with suppress(OSError):
            said[name] = (path / name).read_text().strip()
    return said


FILES = (
    "type",
    "scope",
    "present",
    "online",
    "status",
    "capacity",
    "energy_now",
    "energy_full",
    "charge_now",
    "charge_full",
)
