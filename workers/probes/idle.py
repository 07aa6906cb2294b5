"""Whether the machine is idle: nobody sits at it, or, where nobody ever does, it has little to do.

Where somebody is logged in at the machine's own screen, logind's idle hint is believed, and a machine that prepares to
sleep is not idle. A hint that was never given since the session began says nothing: there are desktops that give none.
Then, and on a machine without a seat, it is the load: at most half a runnable process for each core, and little waiting
for processor, memory or disk (the kernel's pressure figures, "some", the mean of ten seconds); it stays idle until
there is clearly more of either, for the work that an idle machine is given makes load itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from backhaul.clock import Clock
from backhaul.work.reading import Answer
from workers.probes.aside import Aside
from workers.probes.bus import Bus
from workers.probes.hysteresis import Band
from workers.probes.probe import Said
from workers.probes.talk import Answered, Watched

LOGIN = Watched(
    service="org.freedesktop.login1",
    path="/org/freedesktop/login1",
    interface="org.freedesktop.login1.Manager",
    signals=("PrepareForSleep",),
)
SEAT = Watched(
    service="org.freedesktop.login1",
    path="/org/freedesktop/login1/seat/seat0",
    interface="org.freedesktop.login1.Seat",
)
PRESSURE = Path("/proc/pressure")
IDLE_PRESSURE, BUSY_PRESSURE = 20.0, 60.0  # percent of the time in which somebody waited
LOOK_MS = 10_000


class Load(NamedTuple):
    """per_core: runnable processes, the mean of a minute. pressure: percent, the worst of the three; None: not told."""

    per_core: float
    pressure: float | None


class Idle:
    """idle, busy: load for each core; it is idle up to the one, and no more from the other."""

    names = ("device_idle",)

    def __init__(
        self,
        bus: Bus,
        *,
        idle: float,
        busy: float,
        clock: Clock,
        heard: Callable[[], None],
        read: Callable[[], Load | None] | None = None,
    ) -> None:
        self._bus = bus
        self._load = Band(lost=-busy, regained=-idle, at_first=False)
        self._pressure = Band(lost=-BUSY_PRESSURE, regained=-IDLE_PRESSURE, at_first=False)
        self._aside: Aside[Load] = Aside(read or read_load, clock=clock, done=heard, name="load")

    def look(self, now: int) -> None:
        self._aside.begin_if_due(now, LOOK_MS)

    def settled(self) -> bool:
        return self._bus.settled.is_set() and self._aside.settled

    def said(self, now: int) -> list[Said]:
        if not self._bus.settled.is_set():  # the load would say one thing, and logind another a moment later
            return [Said(name="device_idle", answer="unknown", read_at=now, source="none", detail=NOT_YET)]
        login, seat = self._bus.answer(LOGIN), self._bus.answer(SEAT)
        if login is not None:
            if login.properties.get("PreparingForSleep"):
                return [_by_logind("no", login, "it is about to sleep")]
            if seat is None and _tells(login):
                return [_by_logind("unknown", login, "logind does not say whether somebody sits at it")]
            if seat is not None and _attended(seat) and _tells(login):
                hint = bool(login.properties["IdleHint"])
                return [_by_logind("yes" if hint else "no", login, "nobody uses it" if hint else "somebody uses it")]
        found = self._aside.found
        if found is None:
            return [Said(name="device_idle", answer="unknown", read_at=now, source="none", detail=UNTOLD)]
        quiet = self._load.holds(-found.per_core)
        free = found.pressure is None or self._pressure.holds(-found.pressure)
        pressure = "" if found.pressure is None else f", pressure {found.pressure:.0f} %"
        detail = f"load {found.per_core:.2f} for each core{pressure}"
        answer: Answer = "yes" if quiet and free else "no"
        return [Said(name="device_idle", answer=answer, read_at=self._aside.read_at, source="load", detail=detail)]


UNTOLD = "nothing on this machine tells"
NOT_YET = "D-Bus was not asked yet"


def _attended(seat: Answered) -> bool:
    """Whether there is a session at the machine's own screen."""
    return bool(seat.properties.get("ActiveSession", ("",))[0])


def _tells(login: Answered) -> bool:
    if "IdleHint" not in login.properties:
        return False
    return bool(login.properties["IdleHint"] or login.properties.get("IdleSinceHint", 1))


def _by_logind(answer: Answer, login: Answered, detail: str) -> Said:
    return Said(name="device_idle", answer=answer, read_at=login.read_at, source="logind", detail=detail)


def read_load(pressure: Path = PRESSURE) -> Load | None:
    with suppress(OSError):
        worst = [_some(pressure / name) for name in ("cpu", "memory", "io")]
        said = [one for one in worst if one is not None]
        return Load(os.getloadavg()[0] / (os.cpu_count() or 1), max(said, default=None))
    return None


def _some(file: Path) -> float | None:
    """`some avg10=0.22 avg60=...`; kernels without it have no such file, or refuse to have it read."""
    with suppress(OSError, IndexError, ValueError):
        return float(file.read_text().split()[1].removeprefix("avg10="))
    return None
