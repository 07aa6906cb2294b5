"""What is done to a server whose folder is on this machine: a fresh code, a record that it writes itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.merge import Functions
from backhaul.server import auth
from backhaul.server.settings import Settings
from backhaul.server.store import Store, prepare


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


def write_record(settings: Settings, scope: str, place: tuple[str, Sequence[Any]], fields: Mapping[str, Any]) -> int:
    """Beside a running server. Returns the version. Raises Refused, Unknown, ConfigurationInvalid, DatabaseBusy."""
    database = open_database(settings.url)
    now = SystemClock().now()
    try:
        prepare(database, now)
        return Store(database, Functions(settings.merge_modules)).write(scope, *place, fields, now)
    finally:
        database.close()
