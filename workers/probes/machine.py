"""The machine that a worker runs on: all probes together, and what they read.

Signals take effect at once: whoever hears one tells the worker. Behind them everything is asked anew every 30 s, so
that a signal that got lost costs half a minute. Nothing here waits for anything, but `start`, half a second at most.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from backhaul.clock import Clock
from backhaul.telemetry import emit
from backhaul.work.conditions import ENVIRONMENT_PREFIX
from backhaul.work.reading import Reading
from config.settings import Settings
from workers.probes.bus import Bus
from workers.probes.damping import Damping
from workers.probes.idle import LOGIN, SEAT, Idle
from workers.probes.network import MODEM_MANAGER, NETWORK_MANAGER, Network
from workers.probes.power import DISPLAY, UPOWER, Power
from workers.probes.probe import Probe, Said
from workers.probes.server import Server
from workers.probes.storage import Storage, places_of
from workers.probes.talk import Watched

POLL_MS = 30_000
FIRST_SECONDS = 0.5
NETWORK = {"connected", "unmetered", "metered", "not_roaming"}
POWER = {"charging", "battery_not_low"}

WATCHED: tuple[tuple[set[str], tuple[Watched, ...]], ...] = (
    (NETWORK, (NETWORK_MANAGER,)),
    ({"not_roaming"}, (MODEM_MANAGER,)),
    (POWER, (UPOWER, DISPLAY)),
    ({"device_idle"}, (LOGIN, SEAT)),
)


class Machine:
    """What the worker's machine may do just now, of the conditions that are probed; all methods from any thread.

    probes: others than the machine's own, made with what is to be called when they have heard something.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        *,
        environment: Mapping[str, str] = os.environ,
        probes: Callable[[Callable[[], None]], Iterable[Probe]] | None = None,
    ) -> None:
        said = {name.removeprefix(ENVIRONMENT_PREFIX).lower() for name in environment if ENVIRONMENT_PREFIX in name}
        self._on = [name for name in settings.probes.on if name not in said and name not in settings.conditions]
        self._settings = settings
        self._clock = clock
        self._wake: Callable[[], None] = lambda: None
        self._turn = threading.RLock()
        on = set(self._on) if probes is None else set()
        watched = [one for names, services in WATCHED if names & on for one in services]
        self._bus = Bus(watched, clock=clock, heard=self._heard)
        self._probes = list(self._own() if probes is None else probes(self._heard))
        self._damping = {name: Damping(settings.probes.steady) for name in self._on}
        self._readings: Mapping[str, Reading] = MappingProxyType({})
        self._polled_at = 0
        self._begun = self._ended = self._held = False

    def start(self, wake: Callable[[], None]) -> None:
        """Ask everything once, and wait for the answers, half a second at most. wake: called, from whatever thread,
        when an answer has become another."""
        if self._on:
            self._bus.start()
            self._polled_at = self._clock.now()
            self._begun = True
            self._heard()
            deadline = time.monotonic() + FIRST_SECONDS
            while not self._settled() and time.monotonic() < deadline:
                time.sleep(0.005)
            self._heard()
        self._wake = wake

    def readings(self) -> Mapping[str, Reading]:
        """By the names of the conditions."""
        return self._readings

    def look(self, now: int) -> None:
        """The slow poll, and whatever else is due; to be called every 5 s, and every second while it hurries."""
        if not self._on or self._ended:
            return
        if abs(now - self._polled_at) >= POLL_MS:
            self._polled_at = now
            self._bus.ask()
        if self._follow():
            self._wake()

    @property
    def hurries(self) -> bool:
        """Whether an answer is awaited, or waits to be believed: that is due sooner than the slow polls."""
        return self._held or (self._begun and not self._settled())

    def end(self) -> None:
        self._ended = True
        if self._begun:
            self._bus.end()

    def _heard(self) -> None:
        """In the thread of a probe, or of the bus."""
        if self._begun and not self._ended:
            held = self._held
            if self._follow() or self._held > held:  # who rests does not look in time for what waits to be believed
                self._wake()

    def _follow(self) -> bool:
        """Have each probe look, if it is due, and take what it says; whether an answer has become another."""
        with self._turn:
            now = self._clock.now()
            before = self._readings
            said: dict[str, Said] = {}
            for probe in self._probes:
                probe.look(now)
                said |= {one.name: one for one in probe.said(now)}
            readings = {name: self._damped(said[name], now) for name in self._on if name in said}
            self._readings = MappingProxyType(readings)
            self._held = any(said[name].answer != one.answer for name, one in readings.items())
        changed = [one for name, one in readings.items() if name not in before or before[name].answer != one.answer]
        for one in (one for one in changed if one.name in before):
            emit("probe.changed", condition=one.name, answer=one.answer, source=one.source, detail=one.detail)
        return bool(changed)

    def _damped(self, said: Said, now: int) -> Reading:
        damping = self._damping[said.name]
        answer = damping.next(said.answer, now)
        held = answer != said.answer
        detail = f"it has flipped, and must hold for {damping.left_ms(now) / 1000:.0f} s: {said.detail}"
        return Reading(
            name=said.name,
            answer=answer,
            since=damping.since,
            read_at=said.read_at,
            source=said.source,
            detail=detail if held else said.detail,
            good_for=said.good_for,
        )

    def _settled(self) -> bool:
        with self._turn:
            return all(probe.settled() for probe in self._probes)

    def _own(self) -> list[Probe]:
        on, clock, heard, bus = set(self._on), self._clock, self._heard, self._bus
        said, replica = self._settings.probes, self._settings.replica
        probes: list[Probe] = []
        if on & NETWORK:
            probes.append(network := Network(bus, clock=clock, heard=heard))
            if "connected" in on:
                server = Server(
                    replica.remote,
                    allow_plain=replica.allow_plain_http,
                    every_ms=said.server_every,
                    link=network,
                    clock=clock,
                    heard=heard,
                )
                probes.append(server)
        if on & POWER:
            probes.append(Power(bus, low=said.battery_low, ok=said.battery_ok, clock=clock, heard=heard))
        if "device_idle" in on:
            probes.append(Idle(bus, idle=said.idle_load, busy=said.busy_load, clock=clock, heard=heard))
        if "storage_not_low" in on:
            places = places_of(self._settings)
            probes.append(Storage(places, floor=said.storage_floor, clock=clock, heard=heard))
        return probes
