"""What a database says of its own troubles, and what that means to us: a run that waits, and no bug."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.exc import DBAPIError

from backhaul.database import Database, open_database
from backhaul.errors import DatabaseBusy
from tests.services import PostgreSQL

PASSING = {
    "08006": "the connection is lost",
    "40001": "two transactions met",
    "40P01": "two transactions waited for each other",
    "53100": "the disk is full",
    "53300": "there are too many connections",
    "57P01": "the server is stopped",
    "57P03": "the server has just been started",
    "58030": "a file cannot be read",
}


@pytest.fixture(scope="module")
def database(cluster: PostgreSQL) -> Iterator[Database]:
    database = open_database(cluster.database(lasting=True))
    yield database
    database.close()


def fail(database: Database, state: str) -> None:
    with database.writing() as connection:
        connection.exec_driver_sql(f"DO $$ BEGIN RAISE 'no' USING ERRCODE = '{state}'; END $$")


@pytest.mark.parametrize("state", PASSING)
def test_a_trouble_of_postgresql_that_time_heals_is_tried_again(database: Database, state: str) -> None:
    with pytest.raises(DatabaseBusy) as raised:
        fail(database, state)
    assert raised.value.hint


@pytest.mark.parametrize("state", ["42P01", "23505", "22012"])
def test_another_one_is_a_bug_and_stays_what_it_is(database: Database, state: str) -> None:
    with pytest.raises(DBAPIError):
        fail(database, state)
