"""Make Backhaul's own tables, or bring them up to this version: Alembic revisions, run in the program, without a file.

A replica's tables live beside the app's own in the app's database, the server's in the server's. Each family has its
folder of revisions and its version table, and both may live in one database. An upgrade is one transaction.

Every process that opens a database asks whether its tables are of this version, and nearly always they are: that is
asked without Alembic, which takes a fifth of a second to import.
"""

from __future__ import annotations

from threading import Lock

from sqlalchemy import inspect, text

from backhaul.database import Database

VERSION_TABLES = {"replica": "backhaul_schema_version", "server": "server_schema_version"}
HEADS = {"replica": "replica_0001", "server": "server_0001"}  # the last revision in each folder
ADVISORY_LOCK = 0x6261636B  # any number that everyone who upgrades agrees on

_one_at_a_time = Lock()  # Alembic's `context` and `op` are global to the process


def upgrade_replica(database: Database) -> None:
    """Raises Misused when the tables were made by a newer Backhaul."""
    _upgrade(database, "replica")


def upgrade_server(database: Database) -> None:
    """Raises Misused when the tables were made by a newer Backhaul."""
    _upgrade(database, "server")


def _upgrade(database: Database, family: str) -> None:
    if _revision(database, family) == HEADS[family]:
        return
    from backhaul.migrations.revisions import upgrade  # Alembic, where there is something to do

    with _one_at_a_time, database.writing() as connection:
        if not database.sqlite:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
        upgrade(connection, family, VERSION_TABLES[family])


def _revision(database: Database, family: str) -> str | None:
    table = VERSION_TABLES[family]
    with database.reading() as connection:
        if not inspect(connection).has_table(table):
            return None
        return connection.execute(text(f"SELECT version_num FROM {table}")).scalar()  # noqa: S608 - a constant
