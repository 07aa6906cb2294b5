"""Alembic, at work on a family's revisions."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from backhaul.errors import Misused

HERE = Path(__file__).parent


def upgrade(connection: Connection, family: str, version_table: str) -> None:
    """To the last revision. Raises Misused when the tables were made by a newer Backhaul."""
    config = _config(family, connection, version_table)
    _refuse_newer(connection, config, family, version_table)
    command.upgrade(config, "head")


def head(family: str) -> str | None:
    """The last revision."""
    return ScriptDirectory.from_config(_config(family, None, "")).get_current_head()


def _refuse_newer(connection: Connection, config: Config, family: str, version_table: str) -> None:
    context = MigrationContext.configure(connection, opts={"version_table": version_table})
    revision = context.get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise Misused(
            f"the {family} tables in this database were made by a newer Backhaul (revision {revision})",
            hint="pip install --upgrade backhaul",
        )


def _config(family: str, connection: Connection | None, version_table: str) -> Config:
    config = Config(attributes={"connection": connection, "version_table": version_table})
    config.set_main_option("path_separator", "newline")  # a folder's name may hold spaces and colons
    config.set_main_option("script_location", _literal(HERE))
    config.set_main_option("version_locations", _literal(HERE / family))
    return config


def _literal(path: Path) -> str:
    return str(path).replace("%", "%%")  # the option is a template
