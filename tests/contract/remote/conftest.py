"""A server in memory and one over HTTP, and replicas of it: whatever holds for the one must hold for the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count

import pytest

from backhaul.remotes.base import Remote
from backhaul.remotes.http import HttpRemote
from backhaul.server.memory import MemoryRemote, MemoryServer
from backhaul.wire import Table
from tests.contract.remote.replicas import TABLES, Replica
from tests.services import SyncServer, sync_server

Join = Callable[..., Replica]
tests = count(1)


@pytest.fixture(scope="package")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncServer]:
    with sync_server(tmp_path_factory.mktemp("server")) as real:
        yield real


@dataclass(frozen=True, kw_only=True)
class Side:
    """A way to the scopes of a server. Both functions take the name of a scope."""

    connect: Callable[[str], Remote]
    enrol: Callable[[str], str]


@pytest.fixture(params=["memory", "http"])
def side(request: pytest.FixtureRequest) -> Side:
    """Scopes that no other test uses."""
    if request.param == "memory":
        servers: dict[str, MemoryServer] = defaultdict(MemoryServer)
        return Side(connect=lambda scope: MemoryRemote(servers[scope]), enrol=lambda scope: servers[scope].enrol())
    real, test = request.getfixturevalue("real"), next(tests)
    return Side(connect=lambda _: HttpRemote(real.url), enrol=lambda scope: real.enrol(f"{test} {scope}"))


@pytest.fixture
def connect(side: Side) -> Iterator[Callable[..., Remote]]:
    """A remote that is not registered yet."""
    with ExitStack() as stack:

        def connect(scope: str = "") -> Remote:
            remote = side.connect(scope)
            stack.callback(remote.close)
            return remote

        yield connect


@pytest.fixture
def join(side: Side, connect: Callable[..., Remote]) -> Join:
    """Registers a replica in a scope."""

    def join(name: str, tables: list[Table] = TABLES, *, scope: str = "") -> Replica:
        return Replica(connect(scope), side.enrol(scope), name, tables)

    return join
