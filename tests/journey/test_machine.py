"""A real worker on a machine whose NetworkManager, ModemManager, UPower and logind are played on a bus of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.crew import CONFIGURATION, Crew
from tests.played import Played, logind, modem_manager, network_manager, upower
from tests.services import SystemBus, system_bus
from tests.waiting import eventually
from workers.probes.idle import LOGIN
from workers.probes.network import MODEM_MANAGER, NETWORK_MANAGER
from workers.probes.power import UPOWER

QUEUES = '[queues.media]\ntags = ["connected", "unmetered"]'
PROBED = CONFIGURATION.replace("on = []", 'on = ["unmetered", "charging", "device_idle", "not_roaming"]').replace(
    QUEUES,
    f"""{QUEUES}
[queues.plugged]
tags = ["charging"]
[queues.idle]
tags = ["device_idle"]
[queues.abroad]
tags = ["not_roaming"]""",
)
AT_HOME, ROAMING = 1, 5  # ModemManager's RegistrationState


class Scene:
    def __init__(
        self, crew: Crew, bus: SystemBus, network: Played, power: Played, login: Played, modem: Played
    ) -> None:
        self.crew = crew
        self.bus = bus
        self.network = network
        self.power = power
        self.login = login
        self.modem = modem

    def queue(self, name: str, *, is_open: bool) -> float:
        """How long it took, in seconds, until the worker's word in the database was so."""
        begun = time.monotonic()
        eventually(lambda: self.crew.is_open(name) is is_open, 10, f"{name} is {'open' if is_open else 'closed'}")
        return time.monotonic() - begun

    def reading(self, name: str) -> dict[str, object]:
        with self.crew.database.reading() as connection:
            said = connection.execute(text("SELECT readings FROM backhaul_worker")).scalar_one()
        return next(one for one in json.loads(said) if one["name"] == name)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    with system_bus() as bus, ExitStack() as stack:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
        network = stack.enter_context(network_manager(bus.address))
        network.has(NETWORK_MANAGER, PrimaryConnectionType=("s", "gsm"))
        power = stack.enter_context(upower(bus.address))
        login = stack.enter_context(logind(bus.address))
        modem = stack.enter_context(modem_manager(bus.address))
        crew = Crew(tmp_path / "home", configuration=PROBED)
        stack.callback(crew.end, now=True)
        crew.worker()
        yield Scene(crew, bus, network, power, login, modem)


def test_signals_open_and_close_the_queues_and_a_bus_that_is_killed_leaves_the_worker_at_work(scene: Scene) -> None:
    assert scene.crew.is_open("media")
    assert scene.crew.is_open("plugged")
    scene.network.tells(NETWORK_MANAGER, Metered=("u", 1))
    took = scene.queue("media", is_open=False)
    assert scene.crew.is_open("plugged"), "no other queue is touched"
    assert scene.crew.is_open("sync")
    assert scene.reading("unmetered")["source"] == "NetworkManager"
    scene.power.tells(UPOWER, OnBattery=("b", True))
    took = max(took, scene.queue("plugged", is_open=False))
    scene.network.tells(NETWORK_MANAGER, Metered=("u", 2))
    took = max(took, scene.queue("media", is_open=True))
    assert not scene.crew.is_open("idle"), "somebody sits at it"
    scene.login.tells(LOGIN, IdleHint=("b", True))
    took = max(took, scene.queue("idle", is_open=True))
    assert scene.reading("device_idle")["source"] == "logind"
    assert scene.crew.is_open("abroad")
    scene.modem.tells(MODEM_MANAGER, path=f"{MODEM_MANAGER.path}/Modem/0", RegistrationState=("u", ROAMING))
    took = max(took, scene.queue("abroad", is_open=False))
    assert scene.reading("not_roaming")["source"] == "ModemManager"
    scene.login.tells(LOGIN, IdleHint=("b", False))
    took = max(took, scene.queue("idle", is_open=False))
    scene.modem.tells(MODEM_MANAGER, path=f"{MODEM_MANAGER.path}/Modem/0", RegistrationState=("u", AT_HOME))
    took = max(took, scene.queue("abroad", is_open=True))
    print(f"the slowest flip took {took:.3f} s from the signal to the worker's word in the database")
    scene.bus.kill()
    eventually(lambda: scene.reading("unmetered")["answer"] == "unknown", 10, "it is unknown")
    assert scene.crew.is_open("media"), "unknown counts as it was set"
    work = scene.crew.enqueue("note", word="after all")
    scene.crew.ring(scene.crew.work(work).ring)
    scene.crew.settled(work)
