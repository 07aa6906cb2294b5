"""The server that a simulation runs against: the real store, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from backhaul.clock import Clock
from backhaul.database import open_database
from backhaul.remotes.base import Remote
from backhaul.server import auth
from backhaul.server.memory import StoreRemote
from backhaul.server.store import ServerDatabase, Store, prepare

SCOPE = "simulated"


@dataclass(frozen=True, kw_only=True)
class Server:
    """connect: a remote that is not registered yet. enrol: a one-time code."""

    connect: Callable[[], Remote]
    enrol: Callable[[], str]


@contextmanager
def store_server(url: str, clock: Clock) -> Iterator[Server]:
    """url: of its database."""
    database = ServerDatabase(open_database(url))
    prepare(database, clock.now())
    store = Store(database)

    def enrol() -> str:
        with database.writing() as connection:
            return auth.enrol(connection, SCOPE, clock.now())

    yield Server(connect=lambda: StoreRemote(store, clock), enrol=enrol)
    database.close()
