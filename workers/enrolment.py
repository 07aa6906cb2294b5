"""What is done to a server whose folder is on this machine: a fresh code, its replicas, shutting one of them out, a
record that it writes itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, RowMapping

from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.merge import Functions
from backhaul.server import auth
from backhaul.server.settings import Settings
from backhaul.server.store import Store, prepare


def make_code(settings: Settings, scope: str) -> str:
    """Beside a running server, or before the first one. Raises Misused, ConfigurationInvalid, DatabaseBusy."""
    with _opened(settings) as (connection, now):
        return auth.enrol(connection, scope, now)


def known_replicas(settings: Settings, scope: str | None) -> list[RowMapping]:
    """Of one scope, or of all; the one that was heard of last comes first."""
    with _opened(settings) as (connection, _):
        return auth.listed(connection, scope)


def revoke_replica(settings: Settings, replica: str) -> bool:
    """False when there is no such replica, or it is revoked already."""
    with _opened(settings) as (connection, now):
        return auth.revoke(connection, replica, now)


@contextmanager
def _opened(settings: Settings) -> Iterator[tuple[Connection, int]]:
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = open_database(settings.url)
    now = SystemClock().now()
    try:
        prepare(database, now)
        with database.writing() as connection:
            yield connection, now
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
