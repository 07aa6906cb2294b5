"""A replica's database, a server's media in memory, and work that can be told to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from backhaul.clock import Clock
from backhaul.database import Database, open_database
from backhaul.errors import Stopped
from backhaul.media.put import put
from backhaul.media.uploads import Upload
from backhaul.remotes.memory_media import MemoryMediaRemote
from backhaul.schema import replica_metadata

NOW = 1_700_000_000_000


class FrozenClock(Clock):
    def now(self) -> int:
        return NOW


class Run:
    """The context of a run; stops at the check with the given number (from 0)."""

    def __init__(self, stops_at: int | None = None) -> None:
        self.stops_at = stops_at
        self.checks = 0
        self.told: list[dict[str, Any]] = []

    def check(self) -> None:
        self.checks += 1
        if self.stops_at is not None and self.checks > self.stops_at:
            raise Stopped("constraint_unmetered")

    def progress(self, progress: dict[str, Any], /) -> None:
        self.told.append(progress)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path / 'replica.sqlite'}")
    replica_metadata.create_all(database.engine)
    yield database
    database.close()


@pytest.fixture
def remote() -> MemoryMediaRemote:
    return MemoryMediaRemote()


@pytest.fixture
def clock() -> Clock:
    return FrozenClock()


def no_work(_connection: Connection, _upload: Upload) -> None:
    """For tests that run the transfer themselves."""


@pytest.fixture
def registered(database: Database, tmp_path: Path) -> Callable[[bytes], Upload]:
    def register(content: bytes, name: str = "photo.jpg") -> Upload:
        path = tmp_path / name
        path.write_bytes(content)
        return put(database, path, enqueue=no_work, now=NOW)

    return register
