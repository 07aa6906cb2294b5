"""The network as NetworkManager sees it: whether there is one, what it costs, and whether it is a foreign one.

Its `Connectivity` and `State` say whether there is a network; without NetworkManager it is whether the kernel has a
route to anywhere. `Metered` is 1 or 3 (yes, or guessed so) and 2 or 4 (no) as libnm advises; systems without
NetworkManager do not know. Whether a mobile link roams is what ModemManager says; other links do not roam.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backhaul.clock import Clock
from backhaul.work.reading import Answer
from workers.probes.aside import Aside
from workers.probes.bus import Bus
from workers.probes.probe import Said
from workers.probes.talk import Answered, Watched

NETWORK_MANAGER = Watched(
    service="org.freedesktop.NetworkManager",
    path="/org/freedesktop/NetworkManager",
    interface="org.freedesktop.NetworkManager",
)
MODEM = "org.freedesktop.ModemManager1.Modem"
MODEM_MANAGER = Watched(
    service="org.freedesktop.ModemManager1",
    path="/org/freedesktop/ModemManager1",
    interface=f"{MODEM}.Modem3gpp",
    tree=True,
)
NONE, PORTAL, FULL = 1, 2, 4  # NMConnectivityState; 0 is unknown, 3 is limited
OFFLINE = {10: "asleep", 20: "disconnected", 30: "disconnecting", 40: "connecting"}  # NMState
NEAR = (50, 60)  # connected to what is around, with no way to the Internet
EVERYWHERE = 70
METERED, UNMETERED = (1, 3), (2, 4)  # NMMetered; 0 is unknown
MOBILE = ("gsm", "cdma")
HOME, ROAMING = (1, 6, 9), (5, 7, 10)  # MMModem3gppRegistrationState
CDMA_HOME, CDMA_ROAMING = 2, 3  # MMModemCdmaRegistrationState

ROUTES = Path("/proc/net/route")
ROUTES_6 = Path("/proc/net/ipv6_route")
ROUTES_MS = 10_000
UP, REJECTED = 0x1, 0x200


class Network:
    """routes: the kernel's two tables of routes."""

    names = ("unmetered", "metered", "not_roaming")

    def __init__(
        self,
        bus: Bus,
        *,
        clock: Clock,
        heard: Callable[[], None],
        routes: tuple[Path, Path] = (ROUTES, ROUTES_6),
    ) -> None:
        self._bus = bus
        self._routes = routes
        self._aside: Aside[list[str]] = Aside(self._read_routes, clock=clock, done=heard, name="routes")

    def look(self, now: int) -> None:
        if self._bus.answer(NETWORK_MANAGER) is None:
            self._aside.begin_if_due(now, ROUTES_MS)

    def settled(self) -> bool:
        return self._bus.settled.is_set() and (self._aside.settled or self._bus.answer(NETWORK_MANAGER) is not None)

    def said(self, now: int) -> list[Said]:
        found = self._bus.answer(NETWORK_MANAGER)
        if found is None:
            detail = self._bus.without("NetworkManager")
            return [Said(name=name, answer="unknown", read_at=now, source="none", detail=detail) for name in self.names]
        metered = _metered(found.properties)
        roaming, source, detail = self._roaming(found.properties)
        opposite: Answer = "no" if metered == "yes" else "yes" if metered == "no" else "unknown"
        cost = COST[metered]
        return [
            _by_manager("unmetered", opposite, found, cost),
            _by_manager("metered", metered, found, cost),
            Said(name="not_roaming", answer=roaming, read_at=found.read_at, source=source, detail=detail),
        ]

    def link(self, now: int) -> Said:
        """Whether there is a network at all; what is beyond it is not asked. Said of `connected`."""
        found = self._bus.answer(NETWORK_MANAGER)
        if found is not None:
            answer, detail = _link(found.properties)
            if answer != "unknown":
                return _by_manager("connected", answer, found, detail)
        routes = self._aside.found
        if routes is None:
            return Said(
                name="connected",
                answer="unknown",
                read_at=now,
                source="none",
                detail=self._bus.without("NetworkManager"),
            )
        detail = f"there is a route by {', '.join(routes)}" if routes else "there is no route"
        return Said(
            name="connected",
            answer="yes" if routes else "no",
            read_at=self._aside.read_at,
            source="routes",
            detail=detail,
        )

    def captive(self) -> bool:
        found = self._bus.answer(NETWORK_MANAGER)
        return found is not None and found.properties.get("Connectivity") == PORTAL

    def _roaming(self, properties: Mapping[str, Any]) -> tuple[Answer, str, str]:
        kind = properties.get("PrimaryConnectionType")
        if not kind:
            return "unknown", "NetworkManager", "no primary connection"
        if kind not in MOBILE:
            return "yes", "NetworkManager", f"the connection is {kind}"
        modems = self._bus.answer(MODEM_MANAGER)
        states = [] if modems is None else [_registration(modem) for modem in modems.properties.values()]
        if "roaming" in states:
            return "no", "ModemManager", "the modem roams"
        if "home" in states:
            return "yes", "ModemManager", "the modem is in its home network"
        return "unknown", "ModemManager", "the modem does not say where it is"

    def _read_routes(self) -> list[str] | None:
        """The interfaces of this machine's routes. None: the kernel has no such tables."""
        four, six = self._routes
        if not four.exists():
            return None
        lines = [(line[0], int(line[3], 16)) for line in _fields(four)[1:]]
        if six.exists():
            lines += [(line[9], int(line[8], 16)) for line in _fields(six)]
        return sorted({name for name, flags in lines if name != "lo" and flags & UP and not flags & REJECTED})


COST: dict[Answer, str] = {
    "yes": "the link is metered",
    "no": "the link is not metered",
    "unknown": "it does not say whether the link is metered",
}


def _by_manager(name: str, answer: Answer, found: Answered, detail: str) -> Said:
    return Said(name=name, answer=answer, read_at=found.read_at, source="NetworkManager", detail=detail)


def _link(properties: Mapping[str, Any]) -> tuple[Answer, str]:
    state, connectivity = properties.get("State", 0), properties.get("Connectivity", 0)
    if state in OFFLINE:
        return "no", OFFLINE[state]
    if connectivity == PORTAL:
        return "no", "a portal wants a person to sign in"
    if connectivity == NONE and state not in NEAR:
        return "no", "there is no connectivity"
    if connectivity == FULL or state in (*NEAR, EVERYWHERE):
        return "yes", "connected"
    return "unknown", ""


def _metered(properties: Mapping[str, Any]) -> Answer:
    said = properties.get("Metered")
    return "yes" if said in METERED else "no" if said in UNMETERED else "unknown"


def _registration(modem: Mapping[str, Mapping[str, Any]]) -> str:
    """home, roaming, or nothing that is known."""
    state = modem.get(f"{MODEM}.Modem3gpp", {}).get("RegistrationState")
    cdma = modem.get(f"{MODEM}.ModemCdma", {})
    states = (cdma.get("Cdma1xRegistrationState"), cdma.get("EvdoRegistrationState"))
    if state in ROAMING or CDMA_ROAMING in states:
        return "roaming"
    return "home" if state in HOME or CDMA_HOME in states else ""


def _fields(table: Path) -> list[list[str]]:
    return [line.split() for line in table.read_text().splitlines()]
