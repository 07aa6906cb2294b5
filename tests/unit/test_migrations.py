from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData

from backhaul import migrations
from backhaul.database import Database, open_database
from backhaul.errors import Misused
from backhaul.migrations import HEADS, VERSION_TABLES, upgrade_replica, upgrade_server
from backhaul.migrations.revisions import head as last_revision
from backhaul.schema import replica_metadata, server_metadata
from tests import migrating

ROOT = Path(__file__).parents[2]

families = pytest.mark.parametrize(
    ("upgrade", "metadata", "family", "head"),
    [
        (upgrade_replica, replica_metadata, "replica", HEADS["replica"]),
        (upgrade_server, server_metadata, "server", HEADS["server"]),
    ],
    ids=["replica", "server"],
)


@pytest.fixture(autouse=True)
def by_alembic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "_upgrade", migrating.upgrade)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    folder = tmp_path / "a folder: 100%"
    folder.mkdir()
    opened = open_database(f"sqlite:///{folder}/app.db")
    yield opened
    opened.close()


def definitions(database: Database) -> dict[str, list[str]]:
    """What SQLite was told, without regard to layout and order."""
    with database.reading() as connection:
        rows = connection.exec_driver_sql(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE '%schema_version'"
        ).all()
    return {name: sorted(clauses(sql)) for name, sql in rows}


def is_sqlites(found: Any, _name: str, _kind: str, _reflected: bool, _other: object) -> bool:
    """Not an index that is made on PostgreSQL alone."""
    return getattr(found, "_ddl_if", None) is None


def clauses(sql: str) -> list[str]:
    return [re.sub(r"\s+", " ", line).strip().rstrip(",") for line in sql.splitlines()]


@families
def test_the_migrated_tables_are_those_of_the_schema(
    database: Database, tmp_path: Path, upgrade: Callable[[Database], None], metadata: MetaData, family: str, head: str
) -> None:
    upgrade(database)
    with database.reading() as connection:
        options = {"version_table": VERSION_TABLES[family], "include_object": is_sqlites}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
    straight = open_database(f"sqlite:///{tmp_path}/straight.db")
    metadata.create_all(straight.engine)
    assert definitions(database) == definitions(straight)
    straight.close()


def test_the_heads_that_are_asked_for_without_alembic_are_its_own() -> None:
    assert {family: last_revision(family) for family in HEADS} == HEADS


@families
def test_upgrading_twice_changes_nothing(
    database: Database, upgrade: Callable[[Database], None], metadata: MetaData, family: str, head: str
) -> None:
    upgrade(database)
    before = changes_seen(database)
    upgrade(database)
    assert changes_seen(database) == before
    assert revision(database, family) == head


def test_both_families_live_in_one_database_beside_the_apps_own_tables(database: Database) -> None:
    with database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE customer (id INTEGER PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO customer VALUES (1)")
    upgrade_replica(database)
    upgrade_server(database)
    assert (revision(database, "replica"), revision(database, "server")) == (HEADS["replica"], HEADS["server"])
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT id FROM customer").scalar() == 1


@families
def test_a_database_that_is_newer_than_the_code_is_refused_and_left_alone(
    database: Database, upgrade: Callable[[Database], None], metadata: MetaData, family: str, head: str
) -> None:
    upgrade(database)
    with database.writing() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLES[family]} SET version_num = 'from-tomorrow'")
    with pytest.raises(Misused, match=r"newer Backhaul \(revision from-tomorrow\)") as caught:
        upgrade(database)
    assert caught.value.hint == "pip install --upgrade backhaul"
    assert revision(database, family) == "from-tomorrow"


def test_an_upgrade_that_fails_leaves_nothing_behind(database: Database) -> None:
    with database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE backhaul_lease (mine TEXT)")
    with pytest.raises(Exception, match="backhaul_lease"):
        upgrade_replica(database)
    assert definitions(database).keys() == {"backhaul_lease"}


def test_many_who_upgrade_at_once_upgrade_once(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    ready = threading.Barrier(6)

    def upgrade(number: int) -> None:
        opened = open_database(f"sqlite:///{tmp_path}/{number % 2}.db", patience_ms=50_000)
        try:
            ready.wait()
            (upgrade_replica if number % 3 else upgrade_server)(opened)
        except BaseException as error:
            failures.append(error)
        finally:
            opened.close()

    threads = [threading.Thread(target=upgrade, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


def test_an_outbox_number_is_never_used_twice(database: Database) -> None:
    upgrade_replica(database)
    change = (
        "INSERT INTO backhaul_outbox (table_name, key, kind, captured_at, seen_hlc, base)"
        " VALUES ('t', '[1]', 'delete', 1, 0, 0) RETURNING id"
    )
    with database.writing() as connection:
        first = connection.exec_driver_sql(change).scalar()
        connection.exec_driver_sql("DELETE FROM backhaul_outbox")
        assert connection.exec_driver_sql(change).scalar() == (first or 0) + 1


def test_every_folder_of_ours_is_a_package_and_so_is_installed_with_its_revisions() -> None:
    folders = {file.parent for file in (ROOT / "backhaul").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def changes_seen(database: Database) -> tuple[object, ...]:
    with database.reading() as connection:
        return tuple(connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("schema_version", "page_count"))


def revision(database: Database, family: str) -> str:
    with database.reading() as connection:
        return str(connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLES[family]}").scalar())
