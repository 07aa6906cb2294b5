"""The bus itself: hung, dead, back again, and services that come and go on it."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jeepney import MessageFlag

from backhaul.clock import SystemClock
from tests.played import network_manager, upower
from tests.services import SystemBus, system_bus
from tests.waiting import eventually
from workers.probes.bus import ANSWERS, Bus
from workers.probes.network import NETWORK_MANAGER
from workers.probes.power import DISPLAY, UPOWER
from workers.probes.talk import Watched

WATCHED = [NETWORK_MANAGER, UPOWER, DISPLAY]


@contextmanager
def listening(*watched: Watched, heard: Callable[[], None] = lambda: None) -> Iterator[Bus]:
    bus = Bus(watched or WATCHED, clock=SystemClock(), heard=heard)
    bus.start()
    try:
        yield bus
    finally:
        bus.end()
        eventually(lambda: "backhaul-bus" not in {thread.name for thread in threading.enumerate()}, what="it has ended")


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemBus]:
    with system_bus() as running:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", running.address)
        yield running


def metered(bus: Bus) -> object:
    answer = bus.answer(NETWORK_MANAGER)
    return None if answer is None else answer.properties["Metered"]


def test_a_service_that_comes_later_is_heard(daemon: SystemBus) -> None:
    with listening() as bus:
        assert bus.settled.wait(60)
        assert bus.state == ANSWERS
        assert metered(bus) is None
        with network_manager(daemon.address):
            eventually(lambda: metered(bus) == 4, what="NetworkManager is heard")
        eventually(lambda: metered(bus) is None, what="it is gone")


def test_a_signal_is_heard_without_any_poll(daemon: SystemBus) -> None:
    heard = threading.Event()
    with network_manager(daemon.address) as manager, listening(heard=heard.set) as bus:
        eventually(lambda: metered(bus) == 4)
        heard.clear()
        manager.tells(NETWORK_MANAGER, Metered=("u", 1))
        assert heard.wait(60)
        eventually(lambda: metered(bus) == 1)


def test_a_signal_that_got_lost_costs_one_poll(daemon: SystemBus) -> None:
    with network_manager(daemon.address) as manager, listening() as bus:
        eventually(lambda: metered(bus) == 4)
        manager.has(NETWORK_MANAGER, Metered=("u", 1))
        bus.ask()
        eventually(lambda: metered(bus) == 1)


def test_many_signals_are_few_questions(daemon: SystemBus) -> None:
    with network_manager(daemon.address) as manager, listening(NETWORK_MANAGER) as bus:
        eventually(lambda: metered(bus) == 4)
        manager.silent, asked = True, manager.asked
        for _ in range(30):
            manager.tells(NETWORK_MANAGER, Metered=("u", 1))
        eventually(lambda: metered(bus) is None, what="it is given up")
        assert manager.asked <= asked + 3


def test_a_service_that_does_not_answer_is_unknown_and_holds_up_no_other(daemon: SystemBus) -> None:
    with network_manager(daemon.address) as manager, upower(daemon.address), listening() as bus:
        eventually(lambda: metered(bus) == 4)
        manager.silent = True
        bus.ask()
        eventually(lambda: metered(bus) is None, what="it is given up")
        assert bus.answer(UPOWER) is not None
        assert "does not answer" in bus.without("NetworkManager")


def test_a_bus_that_dies_and_comes_back(daemon: SystemBus) -> None:
    with listening() as bus:
        with network_manager(daemon.address):
            eventually(lambda: metered(bus) == 4)
            daemon.kill()
            eventually(lambda: metered(bus) is None, what="nothing is known any more")
            assert bus.state == "D-Bus has gone"
        daemon.begin()
        with network_manager(daemon.address) as manager:
            eventually(lambda: metered(bus) == 4, what="it is known again")
            manager.tells(NETWORK_MANAGER, Metered=("u", 1))
            eventually(lambda: metered(bus) == 1, what="its signals are heard again")


def test_a_bus_that_hangs_for_a_while(daemon: SystemBus) -> None:
    with network_manager(daemon.address), listening() as bus:
        eventually(lambda: metered(bus) == 4)
        daemon.send(signal.SIGSTOP)
        bus.ask()
        eventually(lambda: metered(bus) is None, what="it is given up")
        daemon.send(signal.SIGCONT)
        eventually(lambda: metered(bus) == 4, what="its late answer is taken")


def test_no_bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    with listening() as bus:
        assert bus.settled.wait(60)
        assert bus.state == bus.without("UPower") == "there is no D-Bus"


@pytest.mark.parametrize("address", ["tcp:host=127.0.0.1,port=1", "nonsense", "unix:tmpdir=/tmp"])
def test_an_address_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    with listening() as bus:
        assert bus.settled.wait(60)
        assert bus.state.startswith("D-Bus cannot be talked to")


SAYS = {
    "nothing": b"",
    "that we may come in, and nothing more": b"OK 0123456789abcdef\r\n",
    "that we may not": b"REJECTED DBUS_COOKIE_SHA1\r\n",
    "nonsense": b"OK 0123456789abcdef\r\n" + b"no message of D-Bus at all, and longer than a header",
}


@pytest.mark.parametrize("says", SAYS)
def test_a_bus_that_accepts_and_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, says: str
) -> None:
    """Nobody waits for it, and it is given up within the time that is left for a call."""
    path = tmp_path_factory.mktemp("s") / "s"
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={path}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        taken: list[socket.socket] = []
        threading.Thread(target=_accept, args=(listener, SAYS[says], taken), daemon=True).start()
        with listening() as bus:
            assert bus.answer(NETWORK_MANAGER) is None
            assert bus.settled.wait(60)
            assert bus.state.startswith("D-Bus ")
            assert bus.state != ANSWERS
        for connection in taken:
            connection.close()


def _accept(listener: socket.socket, says: bytes, taken: list[socket.socket]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
            taken.append(connection)
            connection.sendall(says)
        except OSError:
            return


def test_an_end_does_not_wait_for_a_bus_that_hangs(daemon: SystemBus) -> None:
    with listening() as bus:
        assert bus.settled.wait(60)
        daemon.send(signal.SIGSTOP)
        bus.ask()
    daemon.send(signal.SIGCONT)


def test_only_a_service_made_for_it_is_started_and_only_once() -> None:
    quiet = MessageFlag.no_auto_start
    assert not UPOWER.question(first=True).header.flags & quiet
    assert UPOWER.question(first=False).header.flags & quiet
    assert NETWORK_MANAGER.question(first=True).header.flags & quiet
