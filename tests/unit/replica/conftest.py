from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backhaul.server.memory import MemoryRemote, MemoryServer
from tests.replicas import Replica, make_replica

MakeReplica = Callable[..., Replica]


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
def make(server: MemoryServer, tmp_path: Path) -> Iterator[MakeReplica]:
    made: list[Replica] = []

    def make_one(name: str = "a", **options: str) -> Replica:
        replica = make_replica(tmp_path / f"{name}.sqlite", MemoryRemote(server), code=server.enrol(), **options)
        made.append(replica)
        return replica

    yield make_one
    for replica in made:
        replica.close()
