from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backhaul.work.reading import Answer
from tests.probed import FrozenClock
from tests.unit.workers.probes.conftest import KnownBus
from tests.waiting import eventually
from workers.probes.network import MODEM, MODEM_MANAGER, NETWORK_MANAGER, Network

CONNECTED = {"State": 70, "Connectivity": 4, "Metered": 4, "PrimaryConnectionType": "802-11-wireless"}
HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
WIRE = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
LOOPBACK = "lo\t0000007F\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n"
BLACKHOLE = "*\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0\n"
WIRE_6 = "0" * 32 + " 00 " + "0" * 32 + " 00 " + "0" * 32 + " 00000400 00000001 00000000 00000003     wlan0\n"


def network(bus: KnownBus, clock: FrozenClock, folder: Path = Path("/none")) -> Network:
    return Network(bus, clock=clock, heard=lambda: None, routes=(folder / "route", folder / "ipv6_route"))


def answer(probe: Network, name: str, now: int) -> Answer:
    return next(said.answer for said in probe.said(now) if said.name == name)


@pytest.mark.parametrize(
    ("metered", "is_metered", "unmetered"),
    [
        (0, "unknown", "unknown"),
        (1, "yes", "no"),
        (2, "no", "yes"),
        (3, "yes", "no"),
        (4, "no", "yes"),
        (9, "unknown", "unknown"),
    ],
)
def test_metered(bus: KnownBus, clock: FrozenClock, metered: int, is_metered: Answer, unmetered: Answer) -> None:
    bus.known[NETWORK_MANAGER] = CONNECTED | {"Metered": metered}
    probe = network(bus, clock)
    assert (answer(probe, "metered", 0), answer(probe, "unmetered", 0)) == (is_metered, unmetered)


@pytest.mark.parametrize(
    ("state", "connectivity", "there_is"),
    [
        (70, 4, "yes"),
        (70, 3, "yes"),  # limited: whether the server is beyond, the server says
        (70, 2, "no"),  # a portal
        (70, 1, "no"),
        (70, 0, "yes"),  # checks of connectivity are off
        (60, 1, "yes"),  # a local network alone, in which the server may be
        (50, 1, "yes"),
        (40, 1, "no"),
        (20, 1, "no"),
        (10, 0, "no"),
        (0, 4, "yes"),
        (0, 0, "unknown"),
    ],
)
def test_link(bus: KnownBus, clock: FrozenClock, state: int, connectivity: int, there_is: Answer) -> None:
    bus.known[NETWORK_MANAGER] = {"State": state, "Connectivity": connectivity}
    assert network(bus, clock).link(0).answer == there_is


@pytest.mark.parametrize(
    ("kind", "modem", "wanted"),
    [
        ("802-3-ethernet", None, "yes"),
        ("vpn", None, "yes"),
        ("", None, "unknown"),
        ("gsm", None, "unknown"),
        ("gsm", {"Modem3gpp": {"RegistrationState": 1}}, "yes"),
        ("gsm", {"Modem3gpp": {"RegistrationState": 5}}, "no"),
        ("gsm", {"Modem3gpp": {"RegistrationState": 2}}, "unknown"),
        ("cdma", {"ModemCdma": {"Cdma1xRegistrationState": 3}}, "no"),
        ("cdma", {"ModemCdma": {"EvdoRegistrationState": 2}}, "yes"),
    ],
)
def test_roaming(bus: KnownBus, clock: FrozenClock, kind: str, modem: dict[str, Any] | None, wanted: Answer) -> None:
    bus.known[NETWORK_MANAGER] = CONNECTED | {"PrimaryConnectionType": kind}
    if modem is not None:
        bus.known[MODEM_MANAGER] = {"/Modem/0": {f"{MODEM}.{name}": one for name, one in modem.items()}}
    assert answer(network(bus, clock), "not_roaming", 0) == wanted


def test_without_networkmanager_nothing_is_known_of_what_it_costs(bus: KnownBus, clock: FrozenClock) -> None:
    probe = network(bus, clock)
    assert {said.answer for said in probe.said(clock.now())} == {"unknown"}


@pytest.mark.parametrize(
    ("four", "six", "there_is"),
    [
        (HEAD + WIRE + LOOPBACK, "", "yes"),
        (HEAD + LOOPBACK, "", "no"),
        (HEAD, WIRE_6, "yes"),
        (HEAD + BLACKHOLE, "", "no"),
        (HEAD, "", "no"),
    ],
)
def test_without_networkmanager_a_route_is_a_network(
    bus: KnownBus, clock: FrozenClock, tmp_path: Path, four: str, six: str, there_is: Answer
) -> None:
    (tmp_path / "route").write_text(four)
    (tmp_path / "ipv6_route").write_text(six)
    probe = network(bus, clock, tmp_path)
    probe.look(clock.now())
    eventually(probe.settled)
    assert probe.link(clock.now()).answer == there_is


def test_a_system_without_tables_of_routes_does_not_tell(bus: KnownBus, clock: FrozenClock, tmp_path: Path) -> None:
    probe = network(bus, clock, tmp_path)
    probe.look(clock.now())
    eventually(probe.settled)
    assert probe.link(clock.now()).answer == "unknown"
