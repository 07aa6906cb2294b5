from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backhaul.database import Database, open_database
from backhaul.migrations import upgrade_replica

NOON = 1_767_355_200_000  # 2026-01-02T12:00:00Z


class FrozenClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, now: int = NOON) -> None:
        self.time = now

    def now(self) -> int:
        return self.time

    def advance(self, milliseconds: int) -> int:
        self.time += milliseconds
        return self.time


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path}/app.db")
    upgrade_replica(opened)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()
