from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backhaul.database import Database, open_database
from backhaul.errors import DatabaseBusy


def synchronous(database: Database, *, lasting: bool) -> int:
    with database.writing(lasting=lasting) as connection:
        value: int = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
        return value


def test_a_commit_waits_for_the_disk_unless_it_need_not_last(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/app.db")
    for _ in range(2):  # the connection of the pool is as it was
        assert synchronous(database, lasting=False) == 1
        assert synchronous(database, lasting=True) == 2
    database.close()


def test_what_waits_for_no_disk_anyway_is_left_so(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/app.db")
    with database.engine.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA synchronous = OFF")  # type: ignore[union-attr]
    assert synchronous(database, lasting=False) == 0
    assert synchronous(database, lasting=True) == 0
    database.close()


def test_a_new_database_that_an_app_writes_to_is_opened_as_soon_as_it_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite refuses the change to WAL mode at once then, whatever the busy timeout."""
    with closing(sqlite3.connect(tmp_path / "new.sqlite", isolation_level=None)) as app:
        app.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr("backhaul.database.time.sleep", lambda _seconds: app.execute("COMMIT"))
        opened = open_database(f"sqlite:///{tmp_path}/new.sqlite")
        with opened.reading() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        opened.close()
        assert not app.in_transaction


def test_a_new_database_that_an_app_writes_to_for_too_long_is_busy(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "new.sqlite", isolation_level=None)) as app:
        app.execute("BEGIN IMMEDIATE")
        opened = open_database(f"sqlite:///{tmp_path}/new.sqlite", patience_ms=20)
        with pytest.raises(DatabaseBusy), opened.reading():
            pass
        opened.close()
