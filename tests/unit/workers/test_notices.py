from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.notices import Notices

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is said")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
def notices(file: Path) -> Iterator[Notices]:
    made = Notices(file)
    yield made
    made.close()


def opened(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS item (name TEXT)")
    return connection


def test_each_commit_is_said_once(file: Path, notices: Notices) -> None:
    connection = opened(file)
    assert notices.watch()
    for _ in range(2):
        connection.execute("INSERT INTO item VALUES ('tea')")
        assert notices.take()
        assert not notices.take()
    connection.execute("SELECT * FROM item").fetchall()
    assert not notices.take()
    connection.close()


def test_where_there_is_no_log_nothing_is_promised(file: Path, notices: Notices) -> None:
    assert not notices.watch()
    file.touch()
    assert not notices.watch()
    notices.close()
    assert not notices.watch()
    assert not notices.take()


def test_that_the_log_goes_is_said_and_the_next_one_can_be_watched(file: Path, notices: Notices) -> None:
    opened(file).close()
    connection = opened(file)
    assert notices.watch()
    notices.take()
    connection.close()
    assert notices.take()
    assert not notices.watch()
    connection = opened(file)
    assert notices.watch()
    connection.execute("INSERT INTO item VALUES ('tea')")
    assert notices.take()
    connection.close()
