from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.probed import FrozenClock
from workers.probes.bus import Bus
from workers.probes.talk import Answered, Watched


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


class KnownBus(Bus):
    """What is known is what the test has put there; nobody is asked."""

    def __init__(self, clock: FrozenClock) -> None:
        super().__init__([], clock=clock, heard=lambda: None)
        self.start()
        self.known: dict[Watched, Mapping[str, Any]] = {}

    def answer(self, watched: Watched) -> Answered | None:
        properties = self.known.get(watched)
        return None if properties is None else Answered(properties, self._clock.now())


@pytest.fixture
def bus(clock: FrozenClock) -> KnownBus:
    return KnownBus(clock)
