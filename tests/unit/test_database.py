from __future__ import annotations

from pathlib import Path

from backhaul.database import Database, open_database


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
