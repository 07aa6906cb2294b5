"""Our tables in the many fresh databases of tests: Alembic makes the first ones, and what it said there is said again.

Alembic takes a tenth of a second for it, which is more than most tests take. Only a database without the tables is
served so. Every other upgrade has Alembic's, and so have the processes that tests start and the tests of migrations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event, inspect

from backhaul import migrations
from backhaul.database import Database

upgrade = migrations._upgrade
_said: dict[tuple[str, bool], list[str]] = {}


def say_again() -> None:
    """From now on, in this process."""
    migrations._upgrade = _upgrade


def _upgrade(database: Database, family: str) -> None:
    said = _said.get((family, database.sqlite))
    if said is None:
        with _listening(database) as statements:
            upgrade(database, family)
        if any("CREATE TABLE" in statement for statement in statements):  # it was a fresh one
            _said[family, database.sqlite] = statements
    elif not _repeated(database, family, said):
        upgrade(database, family)


def _repeated(database: Database, family: str, said: list[str]) -> bool:
    with database.reading() as connection:
        if _there(connection, family):
            return False
    with database.writing() as connection:
        if not database.sqlite:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({migrations.ADVISORY_LOCK})")
        if _there(connection, family):
            return False
        for statement in said if database.sqlite else [";".join(said)]:
            connection.exec_driver_sql(statement)
        return True


def _there(connection: Connection, family: str) -> bool:
    return inspect(connection).has_table(migrations.VERSION_TABLES[family])


@contextmanager
def _listening(database: Database) -> Iterator[list[str]]:
    statements: list[str] = []

    def hear(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.split(maxsplit=1)[0] in ("CREATE", "ALTER", "INSERT"):
            assert not parameters
            statements.append(statement)

    event.listen(database.engine, "before_cursor_execute", hear)
    try:
        yield statements
    finally:
        event.remove(database.engine, "before_cursor_execute", hear)
