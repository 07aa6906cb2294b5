"""A fresh code for a server whose folder is on this machine."""

from __future__ import annotations

from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.server import auth
from backhaul.server.settings import Settings
from backhaul.server.store import prepare


def make_code(settings: Settings, scope: str) -> str:
    """Beside a running server, or before the first one. Raises Misused, ConfigurationInvalid, DatabaseBusy."""
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = open_database(settings.url)
    now = SystemClock().now()
    try:
        prepare(database, now)
        with database.writing() as connection:
            return auth.enrol(connection, scope, now)
    finally:
        database.close()
