from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.probes.cases import CASES, Case, Scene
from tests.probed import FrozenClock
from tests.services import SystemBus, system_bus


@pytest.fixture(scope="package")
def shared_bus() -> Iterator[SystemBus]:
    with system_bus() as bus:
        yield bus


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def heard() -> threading.Event:
    return threading.Event()


@pytest.fixture(params=CASES)
def case(
    request: pytest.FixtureRequest,
    shared_bus: SystemBus,
    clock: FrozenClock,
    heard: threading.Event,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Case]:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", shared_bus.address)
    with CASES[request.param](Scene(shared_bus, clock, heard.set, tmp_path)) as case:
        yield case
        case.recovers()
        case.ends()
