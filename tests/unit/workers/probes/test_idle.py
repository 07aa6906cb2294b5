from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.probed import FrozenClock
from tests.unit.workers.probes.conftest import KnownBus
from tests.waiting import eventually
from workers.probes.idle import LOGIN, SEAT, Idle, Load, read_load
from workers.probes.probe import Said

SOMEBODY = {"ActiveSession": ("c2", "/org/freedesktop/login1/session/c2")}
NOBODY = {"ActiveSession": ("", "/")}
CALM, BUSY = Load(0.1, 1.0), Load(3.0, 1.0)


def said(bus: KnownBus, clock: FrozenClock, load: Load | None, seat: Any = None, **login: Any) -> Said:
    bus.known = {LOGIN: login} if login else {}
    if seat is not None:
        bus.known[SEAT] = seat
    probe = Idle(bus, idle=0.5, busy=1.5, clock=clock, heard=lambda: None, read=lambda: load)
    probe.look(clock.now())
    eventually(probe.settled)
    return probe.said(clock.now())[0]


@pytest.mark.parametrize(("hint", "wanted"), [(True, "yes"), (False, "no")])
def test_with_somebody_at_its_seat_the_hint_is_believed_whatever_the_load(
    bus: KnownBus, clock: FrozenClock, hint: bool, wanted: str
) -> None:
    found = said(bus, clock, BUSY if hint else CALM, SOMEBODY, IdleHint=hint, IdleSinceHint=1)
    assert (found.answer, found.source) == (wanted, "logind")


def test_what_prepares_for_sleep_is_not_idle(bus: KnownBus, clock: FrozenClock) -> None:
    found = said(bus, clock, CALM, SOMEBODY, IdleHint=True, IdleSinceHint=1, PreparingForSleep=True)
    assert (found.answer, found.source) == ("no", "logind")


@pytest.mark.parametrize(("load", "wanted"), [(CALM, "yes"), (BUSY, "no")])
def test_without_a_person_at_its_seat_it_is_the_load(
    bus: KnownBus, clock: FrozenClock, load: Load, wanted: str
) -> None:
    for found in (said(bus, clock, load, NOBODY, IdleHint=True, IdleSinceHint=1), said(bus, clock, load)):
        assert (found.answer, found.source) == (wanted, "load")


def test_a_seat_that_answers_late_is_not_one_at_which_nobody_sits(bus: KnownBus, clock: FrozenClock) -> None:
    found = said(bus, clock, CALM, IdleHint=False, IdleSinceHint=1)
    assert (found.answer, found.source) == ("unknown", "logind")


def test_before_the_bus_was_asked_the_load_says_nothing(bus: KnownBus, clock: FrozenClock) -> None:
    bus.settled.clear()
    heard: list[bool] = []
    probe = Idle(bus, idle=0.5, busy=1.5, clock=clock, heard=lambda: heard.append(True), read=lambda: BUSY)
    probe.look(clock.now())
    eventually(lambda: heard)
    assert (probe.said(clock.now())[0].answer, probe.settled()) == ("unknown", False)
    bus.settled.set()
    assert (probe.said(clock.now())[0].answer, probe.settled()) == ("no", True)


def test_a_hint_that_was_never_given_says_nothing(bus: KnownBus, clock: FrozenClock) -> None:
    found = said(bus, clock, CALM, SOMEBODY, IdleHint=False, IdleSinceHint=0)
    assert (found.answer, found.source) == ("yes", "load")


def test_the_load_that_its_own_work_makes_does_not_end_it(bus: KnownBus, clock: FrozenClock) -> None:
    loads = [Load(0.4, 19.0), Load(1.4, 50.0), Load(1.5, 0.0), Load(0.6, 0.0), Load(0.5, 30.0), Load(0.5, 20.0)]
    read = iter(loads)
    probe = Idle(bus, idle=0.5, busy=1.5, clock=clock, heard=lambda: None, read=lambda: next(read))
    seen = []
    for number in range(1, len(loads) + 1):
        probe.look(clock.advance(10_000))
        eventually(lambda number=number: probe._aside.looks == number)
        seen.append(probe.said(clock.now())[0].answer)
    assert seen == ["yes", "yes", "no", "no", "yes", "yes"]


def test_pressure_counts_too(bus: KnownBus, clock: FrozenClock) -> None:
    assert said(bus, clock, Load(0.1, 80.0)).answer == "no"
    assert said(bus, clock, Load(0.1, None)).answer == "yes"


def test_no_load_is_unknown(bus: KnownBus, clock: FrozenClock) -> None:
    assert said(bus, clock, None).answer == "unknown"


def test_the_worst_of_the_kernels_pressures(tmp_path: Path) -> None:
    for name, some in {"cpu": "0.22", "io": "43.10"}.items():
        (tmp_path / name).write_text(f"some avg10={some} avg60=1.00 avg300=0.00 total=1\n")
    (tmp_path / "memory").write_text("nonsense\n")
    found = read_load(tmp_path)
    assert found is not None
    assert found.pressure == 43.1
    assert found.per_core == pytest.approx(os.getloadavg()[0] / (os.cpu_count() or 1), abs=1)
    assert read_load(tmp_path / "none") is not None
