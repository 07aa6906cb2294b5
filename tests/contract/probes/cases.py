"""Every probe over every source that it has, each with a way to flip what the source says, and to make it hang."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from backhaul.work.reading import Answer
from tests.played import Played, logind, network_manager, upower
from tests.probed import FakeProbe, FrozenClock
from tests.services import SystemBus
from workers.probes.bus import Bus
from workers.probes.idle import LOGIN, SEAT, Idle, Load
from workers.probes.network import MODEM_MANAGER, NETWORK_MANAGER, Network
from workers.probes.power import DISPLAY, UPOWER, Power, Supply, supply_of
from workers.probes.probe import Probe
from workers.probes.server import Server
from workers.probes.storage import Storage
from workers.probes.talk import Watched


@dataclass(kw_only=True)
class Case:
    """says: what it answers at first. flips: makes the source say `flipped`. hangs: it answers nobody from now on;
    then the probe says `hanging`. recovers: it answers again. signalled: without being asked."""

    probe: Probe
    says: Mapping[str, Answer]
    flips: Callable[[], None]
    flipped: Mapping[str, Answer]
    hangs: Callable[[], None]
    hanging: Mapping[str, Answer]
    recovers: Callable[[], None]
    ends: Callable[[], None] = lambda: None
    signalled: bool = False


@dataclass
class Gate:
    """What a reader passes, unless it is shut: then it hangs there."""

    open: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.open.set()

    def passed(self) -> None:
        self.open.wait(20)


def no_bus(clock: FrozenClock, heard: Callable[[], None]) -> Bus:
    bus = Bus([], clock=clock, heard=heard)
    bus.start()
    return bus


@contextmanager
def over_bus(
    played: Played, watched: list[Watched], clock: FrozenClock, heard: Callable[[], None]
) -> Iterator[tuple[Bus, Played]]:
    with played:
        bus = Bus(watched, clock=clock, heard=heard)
        bus.start()
        try:
            yield bus, played
        finally:
            bus.end()


def silence(bus: Bus, played: Played, silent: bool = True) -> None:
    played.silent = silent
    bus.ask()


@dataclass(frozen=True)
class Scene:
    bus: SystemBus
    clock: FrozenClock
    heard: Callable[[], None]
    folder: Path


@contextmanager
def network(scene: Scene) -> Iterator[Case]:
    clock, heard = scene.clock, scene.heard
    with over_bus(network_manager(scene.bus.address), [NETWORK_MANAGER, MODEM_MANAGER], clock, heard) as (bus, manager):
        yield Case(
            probe=Network(bus, clock=clock, heard=heard),
            says={"unmetered": "yes", "metered": "no", "not_roaming": "yes"},
            flips=lambda: manager.tells(NETWORK_MANAGER, Metered=("u", 1)),
            flipped={"unmetered": "no", "metered": "yes"},
            hangs=partial(silence, bus, manager),
            recovers=partial(silence, bus, manager, False),
            signalled=True,
            hanging={"unmetered": "unknown", "metered": "unknown", "not_roaming": "unknown"},
        )


@contextmanager
def power_by_upower(scene: Scene) -> Iterator[Case]:
    clock, heard = scene.clock, scene.heard
    with over_bus(upower(scene.bus.address), [UPOWER, DISPLAY], clock, heard) as (bus, power):
        yield Case(
            probe=Power(bus, low=15, ok=20, clock=clock, heard=heard, read=lambda: None),
            says={"charging": "yes", "battery_not_low": "yes"},
            flips=lambda: power.tells(UPOWER, OnBattery=("b", True)),
            flipped={"charging": "no", "battery_not_low": "yes"},
            hangs=partial(silence, bus, power),
            recovers=partial(silence, bus, power, False),
            signalled=True,
            hanging={"charging": "unknown", "battery_not_low": "unknown"},
        )


@contextmanager
def power_by_files(scene: Scene) -> Iterator[Case]:
    clock, heard = scene.clock, scene.heard
    gate, battery = Gate(), scene.folder / "BAT0"
    battery.mkdir()
    for name, text in {"type": "Battery", "status": "Charging", "capacity": "60"}.items():
        (battery / name).write_text(f"{text}\n")

    def flips() -> None:
        (battery / "status").write_text("Discharging\n")
        (battery / "capacity").write_text("14\n")

    def read() -> Supply:
        gate.passed()
        return supply_of(scene.folder)

    yield Case(
        probe=Power(no_bus(clock, heard), low=15, ok=20, clock=clock, heard=heard, read=read),
        says={"charging": "yes", "battery_not_low": "yes"},
        flips=flips,
        flipped={"charging": "no", "battery_not_low": "no"},
        hangs=gate.open.clear,
        hanging={"charging": "unknown", "battery_not_low": "unknown"},
        recovers=gate.open.set,
    )


@contextmanager
def idle_by_logind(scene: Scene) -> Iterator[Case]:
    clock, heard = scene.clock, scene.heard
    with over_bus(logind(scene.bus.address), [LOGIN, SEAT], clock, heard) as (bus, login):
        yield Case(
            probe=Idle(bus, idle=0.5, busy=1.5, clock=clock, heard=heard, read=lambda: None),
            says={"device_idle": "no"},
            flips=lambda: login.tells(LOGIN, IdleHint=("b", True)),
            flipped={"device_idle": "yes"},
            hangs=partial(silence, bus, login),
            recovers=partial(silence, bus, login, False),
            signalled=True,
            hanging={"device_idle": "unknown"},
        )


@contextmanager
def idle_by_load(scene: Scene) -> Iterator[Case]:
    clock, heard = scene.clock, scene.heard
    gate, loads = Gate(), [Load(0.1, 2.0)]

    def read() -> Load:
        gate.passed()
        return loads[-1]

    yield Case(
        probe=Idle(no_bus(clock, heard), idle=0.5, busy=1.5, clock=clock, heard=heard, read=read),
        says={"device_idle": "yes"},
        flips=lambda: loads.append(Load(2.0, 3.0)),
        flipped={"device_idle": "no"},
        hangs=gate.open.clear,
        hanging={"device_idle": "unknown"},
        recovers=gate.open.set,
    )


@contextmanager
def storage(scene: Scene) -> Iterator[Case]:
    clock, heard = scene.clock, scene.heard
    gate, free = Gate(), [2_000]

    def look(place: Path) -> int:
        gate.passed()
        return free[-1]

    yield Case(
        probe=Storage([scene.folder], floor=1_000, clock=clock, heard=heard, free=look),
        says={"storage_not_low": "yes"},
        flips=lambda: free.append(999),
        flipped={"storage_not_low": "no"},
        hangs=gate.open.clear,
        hanging={"storage_not_low": "unknown"},
        recovers=gate.open.set,
    )


@contextmanager
def server(scene: Scene) -> Iterator[Case]:
    """It has a name that does not resolve in time, when it hangs: two of those are a "no"."""
    clock, heard = scene.clock, scene.heard
    gate = Gate()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
        gate.passed()
        return [(socket.AF_INET, (host, port))]

    def ends() -> None:
        gate.open.set()
        listener.close()

    bus = no_bus(clock, heard)
    yield Case(
        probe=Server(
            f"http://127.0.0.1:{port}",
            allow_plain=False,
            every_ms=15_000,
            link=Network(bus, clock=clock, heard=heard),
            clock=clock,
            heard=heard,
            resolve=resolve,
            patience=0.5,
        ),
        says={"connected": "yes"},
        flips=listener.close,
        flipped={"connected": "no"},
        hangs=gate.open.clear,
        hanging={"connected": "no"},
        recovers=gate.open.set,
        ends=ends,
    )


@contextmanager
def fake(scene: Scene) -> Iterator[Case]:
    clock, heard = scene.clock, scene.heard
    probe = FakeProbe("charging", clock=clock, heard=heard)
    probe.reads(charging="yes")
    yield Case(
        probe=probe,
        says={"charging": "yes"},
        flips=lambda: probe.reads(charging="no"),
        flipped={"charging": "no"},
        hangs=lambda: probe.reads(charging="unknown"),
        hanging={"charging": "unknown"},
        recovers=lambda: probe.reads(charging="yes"),
    )


CASES: dict[str, Callable[[Scene], AbstractContextManager[Case]]] = {
    "network": network,
    "power-by-upower": power_by_upower,
    "power-by-files": power_by_files,
    "idle-by-logind": idle_by_logind,
    "idle-by-load": idle_by_load,
    "storage": storage,
    "server": server,
    "fake": fake,
}
