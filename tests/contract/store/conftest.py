"""A store over SQLite and over PostgreSQL, and replicas in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backhaul.database import open_database
from backhaul.server import auth
from backhaul.server.store import ServerDatabase, Store, prepare
from backhaul.wire import Registration, Table
from tests.contract.store.devices import NOW, TABLES, Device


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path) -> Iterator[ServerDatabase]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'server.sqlite'}"
    else:
        url = request.getfixturevalue("cluster").database()
    database = ServerDatabase(open_database(url))
    prepare(database, NOW)
    yield database
    database.close()


@pytest.fixture
def store(database) -> Store:
    return Store(database)


@pytest.fixture
def join(store):
    """Another replica of a scope."""

    def join(scope: str = "shop", tables: list[Table] = TABLES) -> Device:
        with store.database.writing() as connection:
            code = auth.enrol(connection, scope, NOW)
            made = auth.register(connection, Registration(code=code, tables=tables), NOW)
        return Device(store, auth.Replica(id=made.replica, scope=scope))

    return join


@pytest.fixture
def ann(join) -> Device:
    return join()


@pytest.fixture
def bob(join) -> Device:
    return join()
