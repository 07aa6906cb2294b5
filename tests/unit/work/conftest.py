from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from backhaul.database import Database, open_database
from backhaul.migrations import upgrade_replica
from backhaul.work import looking
from tests.unit.work.desk import Desk

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


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """With our tables."""
    database = open_database(url)
    upgrade_replica(database)
    yield database
    database.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with opened(f"sqlite:///{tmp_path}/app.db") as made:
        yield made


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def desk(database: Database, clock: FrozenClock) -> Iterator[Desk]:
    made = Desk(database, create_engine(database.engine.url), clock)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy is no file system that hangs."""
    monkeypatch.setattr(looking, "FILE_SECONDS", 60.0)
    monkeypatch.setattr(looking, "ALL_SECONDS", 60.0)
