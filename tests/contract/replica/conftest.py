"""Replicas on SQLite and on PostgreSQL, of one server; the same tests run over both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backhaul.server.memory import MemoryRemote, MemoryServer
from tests.replicas import Replica, make_postgresql_replica, make_replica
from tests.services import PostgreSQL

MakeReplica = Callable[..., Replica]

# {serial}: a key that the database numbers; {bytes}: the type of bytes.
SHOP = """
    CREATE TABLE customer ({serial}, name TEXT NOT NULL, phone TEXT, credit NUMERIC(10, 2), photo {bytes});
    CREATE TABLE invoice (
        {serial}, customer_id INTEGER NOT NULL REFERENCES customer (id), total NUMERIC(10, 2));
    CREATE TABLE line (
        invoice_id INTEGER NOT NULL REFERENCES invoice (id), position INTEGER NOT NULL, what TEXT,
        PRIMARY KEY (invoice_id, position));
    CREATE TABLE tag (code TEXT PRIMARY KEY, label TEXT);
"""
WORDS = {
    "sqlite": {"serial": "id INTEGER PRIMARY KEY", "bytes": "BLOB"},
    "postgresql": {"serial": "id SERIAL PRIMARY KEY", "bytes": "BYTEA"},
}


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
def make_on(server: MemoryServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeReplica]:
    """make_on("sqlite"), make_on("postgresql", schema=..., before=...)"""
    made: list[Replica] = []

    def make_one(kind: str, *, schema: str = SHOP, before: str = "", rules: Any = None) -> Replica:
        remote, code, said = MemoryRemote(server), server.enrol(), schema.format(**WORDS[kind])
        if kind == "sqlite":
            path = tmp_path / f"{len(made)}.sqlite"
            made.append(make_replica(path, remote, schema=said, code=code, before=before, rules=rules))
        else:
            cluster: PostgreSQL = request.getfixturevalue("cluster")
            url = cluster.database()
            options: Any = {"schema": said, "code": code, "before": before, "home": tmp_path, "rules": rules}
            made.append(make_postgresql_replica(url, remote, **options))
        return made[-1]

    yield make_one
    for replica in made:
        replica.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(make_on: MakeReplica, kind: str) -> MakeReplica:
    def make_one(**options: Any) -> Replica:
        return make_on(kind, **options)

    return make_one
