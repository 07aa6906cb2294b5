"""The ledger of work on SQLite and on PostgreSQL; the same tests run over both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backhaul.database import Database
from backhaul.schema import replica_metadata
from tests.services import PostgreSQL
from tests.unit.work.conftest import clock, desk, opened, patient

__all__ = ["clock", "desk", "patient"]  # fixtures, as the tests of one process have them


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def on_postgresql(cluster: PostgreSQL) -> Iterator[Database]:
    """One for all tests: to make one and its tables takes longer than most of them."""
    with opened(cluster.database(lasting=True)) as made:
        yield made


@pytest.fixture
def database(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if kind == "sqlite":
        with opened(f"sqlite:///{tmp_path}/app.db") as made:
            yield made
        return
    kept: Database = request.getfixturevalue("on_postgresql")
    with kept.writing() as connection:
        tables = ", ".join(replica_metadata.tables)
        connection.exec_driver_sql(f"TRUNCATE {tables}")
    yield kept
