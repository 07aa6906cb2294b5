"""A fresh code for a server whose folder is on this machine, its replicas, and shutting one out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, RowMapping

from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.server import auth
from backhaul.server.settings import Settings
from backhaul.server.store import prepare


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
