"""A whole machine on a bus: every signal of NetworkManager, UPower and logind is a reading, and wakes the worker."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from backhaul.clock import SystemClock
from backhaul.work.reading import Answer
from tests.played import Played, logind, modem_manager, network_manager, prepares_for_sleep, upower
from tests.probed import settings
from tests.services import SystemBus, system_bus
from tests.waiting import eventually
from workers.probes.idle import LOGIN
from workers.probes.machine import POLL_MS, Machine
from workers.probes.network import MODEM_MANAGER, NETWORK_MANAGER
from workers.probes.power import DISPLAY, UPOWER

MODEM_PATH = f"{MODEM_MANAGER.path}/Modem/0"


class Desk:
    """The machine, its bus, and who plays on it."""

    def __init__(self, home: Path, bus: SystemBus, stack: ExitStack) -> None:
        self.bus = bus
        self.network: Played = stack.enter_context(network_manager(bus.address))
        self.modem: Played = stack.enter_context(modem_manager(bus.address))
        self.power: Played = stack.enter_context(upower(bus.address))
        self.login: Played = stack.enter_context(logind(bus.address))
        self.woken = threading.Event()
        self.machine = Machine(settings(home, remote="https://sync.invalid"), SystemClock(), environment={})
        self.machine.start(self.woken.set)
        stack.callback(self.machine.end)

    def is_(self, name: str, answer: Answer) -> bool:
        return self.machine.readings()[name].answer == answer


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with system_bus() as bus, ExitStack() as stack:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")  # no name is looked up, and nobody reached
        yield Desk(tmp_path, bus, stack)


FLIPS: dict[str, tuple[str, Answer, Answer, Callable[[Desk], None]]] = {
    "it is metered": (
        "unmetered",
        "yes",
        "no",
        lambda desk: desk.network.tells(NETWORK_MANAGER, Metered=("u", 3)),
    ),
    "it is metered, as is asked for": (
        "metered",
        "no",
        "yes",
        lambda desk: desk.network.tells(NETWORK_MANAGER, Metered=("u", 1)),
    ),
    "it is offline": (
        "connected",
        "unknown",
        "no",
        lambda desk: desk.network.tells(NETWORK_MANAGER, State=("u", 20), Connectivity=("u", 1)),
    ),
    "a portal": (
        "connected",
        "unknown",
        "no",
        lambda desk: desk.network.tells(NETWORK_MANAGER, Connectivity=("u", 2)),
    ),
    "it is on battery": ("charging", "yes", "no", lambda desk: desk.power.tells(UPOWER, OnBattery=("b", True))),
    "its battery is low": (
        "battery_not_low",
        "yes",
        "no",
        lambda desk: desk.power.tells(DISPLAY, Percentage=("d", 15.0)),
    ),
    "nobody uses it": ("device_idle", "no", "yes", lambda desk: desk.login.tells(LOGIN, IdleHint=("b", True))),
}


@pytest.mark.parametrize("flip", FLIPS)
def test_a_signal_takes_effect_at_once_without_anyone_looking(desk: Desk, flip: str) -> None:
    name, before, after, happens = FLIPS[flip]
    eventually(lambda: desk.is_(name, before), 5, f"before {flip}")
    desk.woken.clear()
    happens(desk)
    assert desk.woken.wait(60)
    eventually(lambda: desk.is_(name, after), 5, flip)


def test_a_signal_that_got_lost_costs_one_poll(desk: Desk) -> None:
    desk.network.has(NETWORK_MANAGER, Metered=("u", 1))
    desk.machine.look(SystemClock().now() + POLL_MS)
    eventually(lambda: desk.is_("unmetered", "no"), what="it was asked anew")


def test_a_modem_that_begins_to_roam(desk: Desk) -> None:
    assert desk.is_("not_roaming", "yes")
    desk.network.tells(NETWORK_MANAGER, PrimaryConnectionType=("s", "gsm"))
    eventually(lambda: desk.machine.readings()["not_roaming"].source == "ModemManager")
    assert desk.is_("not_roaming", "yes")
    desk.modem.tells(MODEM_MANAGER, path=MODEM_PATH, RegistrationState=("u", 5))
    eventually(lambda: desk.is_("not_roaming", "no"), what="it roams")


def test_what_prepares_for_sleep_is_not_idle(desk: Desk) -> None:
    desk.login.tells(LOGIN, IdleHint=("b", True))
    eventually(lambda: desk.is_("device_idle", "yes"))
    prepares_for_sleep(desk.login, True)
    eventually(lambda: desk.is_("device_idle", "no"), what="it is about to sleep")


def test_a_bus_that_is_killed_leaves_what_it_told_unknown_and_all_else_as_it_is(desk: Desk) -> None:
    desk.network.tells(NETWORK_MANAGER, Metered=("u", 1))
    eventually(lambda: desk.is_("unmetered", "no"))
    desk.bus.kill()
    eventually(lambda: desk.is_("unmetered", "unknown"), what="it is not known any more")
    eventually(lambda: desk.machine.readings()["charging"].source in ("sysfs", "psutil", "none"))
    assert desk.is_("storage_not_low", "yes")


def test_a_bus_that_hangs_holds_up_neither_the_start_nor_a_look(desk: Desk, tmp_path: Path) -> None:
    desk.bus.send(signal.SIGSTOP)
    machine = Machine(settings(tmp_path), SystemClock(), environment={})
    slowest = 0.0
    try:
        begun = time.monotonic()
        machine.start(lambda: None)
        start = time.monotonic() - begun
        for _ in range(20):
            begun = time.monotonic()
            machine.look(SystemClock().now())
            machine.readings()
            slowest = max(slowest, time.monotonic() - begun)
        assert start < 5  # half a second, on a machine with nothing else to do
        assert slowest < 5
        assert machine.readings()["unmetered"].answer == "unknown"
    finally:
        begun = time.monotonic()
        machine.end()
        assert time.monotonic() - begun < 5
        desk.bus.send(signal.SIGCONT)
