"""For tests of what is made of probes: a probe that says what it is told to, a clock, and settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from backhaul.work.reading import Answer
from config.settings import Settings
from workers.probes.probe import Said

NOON = 1_767_355_200_000  # 2026-01-02T12:00:00Z


class FrozenClock:
    def __init__(self) -> None:
        self.time = NOON

    def now(self) -> int:
        return self.time

    def advance(self, milliseconds: int) -> int:
        self.time += milliseconds
        return self.time


class FakeProbe:
    """reads: what its source, were there one, says from now on. Nothing is read before the first look."""

    def __init__(self, *names: str, clock: FrozenClock, heard: Callable[[], None]) -> None:
        self.names = names
        self._clock = clock
        self._heard = heard
        self._source: dict[str, tuple[Answer, int]] = {}
        self._looked = False

    def reads(self, **answers: Answer) -> None:
        self._source |= {name: (answer, self._clock.now()) for name, answer in answers.items()}
        self._heard()

    def look(self, now: int) -> None:
        self._looked = True

    def settled(self) -> bool:
        return self._looked

    def said(self, now: int) -> list[Said]:
        known: dict[str, tuple[Answer, int]] = dict.fromkeys(self.names, ("unknown", now))
        if self._looked:
            known |= self._source
        return [
            Said(name=name, answer=known[name][0], read_at=known[name][1], source="the test", detail="as it says")
            for name in self.names
        ]


def settings(home: Path, *, remote: str = "http://127.0.0.1:1", **sections: Any) -> Settings:
    replica = {"database": f"sqlite:///{home}/shop.db", "remote": remote}
    return Settings(home=home, replica=replica, **sections)
