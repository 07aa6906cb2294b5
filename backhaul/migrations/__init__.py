"""Make Backhaul's own tables, or bring them up to this version: Alembic revisions, run in the program, without a file.

A replica's tables live beside the app's own in the app's database, the server's in the server's. Each family has its
folder of revisions and its version table, and both may live in one database. An upgrade is one transaction.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from backhaul.database import Database
from backhaul.errors import Misused

HERE = Path(__file__).parent
VERSION_TABLES = {"replica": "backhaul_schema_version", "server": "server_schema_version"}
ADVISORY_LOCK = 0x6261636B  # any number that everyone who upgrades agrees on

_one_at_a_time = Lock()  # Alembic's `context` and `op` are global to the process


def upgrade_replica(database: Database) -> None:
    """Raises Misused when the tables were made by a newer Backhaul."""
    _upgrade(database, "replica")


def upgrade_server(database: Database) -> None:
    """Raises Misused when the tables were made by a newer Backhaul."""
    _upgrade(database, "server")


def head_replica() -> str:
    """The revision that this version brings a replica to."""
    return _head("replica")


def head_server() -> str:
    """The revision that this version brings a server to."""
    return _head("server")


def _upgrade(database: Database, family: str) -> None:
    with database.reading() as connection:
        if _revision(connection, family) == _head(family):
            return
    with _one_at_a_time, database.writing() as connection:
        if not database.sqlite:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
        _refuse_newer(connection, family)
        command.upgrade(_config(family, connection), "head")


def _refuse_newer(connection: Connection, family: str) -> None:
    revision = _revision(connection, family)
    known = {script.revision for script in _scripts(family).walk_revisions()}
    if revision is not None and revision not in known:
        raise Misused(
            f"the {family} tables in this database were made by a newer Backhaul (revision {revision})",
            hint="pip install --upgrade backhaul",
        )


def _revision(connection: Connection, family: str) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLES[family]})
    return context.get_current_revision()


def _head(family: str) -> str:
    head = _scripts(family).get_current_head()
    assert head is not None
    return head


def _scripts(family: str) -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(family, None))


def _config(family: str, connection: Connection | None) -> Config:
    config = Config(attributes={"connection": connection, "version_table": VERSION_TABLES[family]})
    config.set_main_option("path_separator", "newline")  # a folder's name may hold spaces and colons
    config.set_main_option("script_location", _literal(HERE))
    config.set_main_option("version_locations", _literal(HERE / family))
    return config


def _literal(path: Path) -> str:
    return str(path).replace("%", "%%")  # the option is a template
