"""What is done to a server whose folder is on this machine: a fresh code, its replicas, shutting one of them out, a
record that it writes itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

from sqlalchemy import Connection, RowMapping

from backhaul.clock import SystemClock
from backhaul.database import open_database, sqlite_file
from backhaul.errors import Misused
from backhaul.merge import Functions
from backhaul.server import auth, tables
from backhaul.server.settings import Settings
from backhaul.server.store import Store, prepare

NUMBER = re.compile(r"-?[0-9]+")
WORDS = ("text", "uuid", "timestamp", "time")  # kinds of columns whose digits are letters


def make_code(settings: Settings, scope: str) -> str:
    """Beside a running server, or before the first one. Raises Misused, ConfigurationInvalid, DatabaseBusy."""
    with _opened(settings, made=True) as (connection, now):
        return auth.enrol(connection, scope, now)


def known_replicas(settings: Settings, scope: str | None) -> list[RowMapping]:
    """Of one scope, or of all; the one that was heard of last comes first."""
    with _opened(settings) as (connection, _):
        return auth.listed(connection, scope)


def revoke_replica(settings: Settings, replica: str) -> bool:
    """False when there is no such replica, or it is revoked already."""
    with _opened(settings) as (connection, now):
        return auth.revoke(connection, replica, now)


def write_record(settings: Settings, scope: str, place: tuple[str, Sequence[str]], fields: Mapping[str, Any]) -> int:
    """Beside a running server. place: the table and the key, as a person writes it. Returns the version. Raises
    Refused, Unknown, Misused, ConfigurationInvalid, DatabaseBusy."""
    _check_is_there(settings)
    database = open_database(settings.url)
    now = SystemClock().now()
    try:
        prepare(database, now)
        with database.reading() as connection:
            kinds = tables.key_kinds(connection, scope, place[0])
        key = [_part(said, kind) for said, kind in zip_longest(place[1], kinds[: len(place[1])], fillvalue="any")]
        return Store(database, Functions(settings.merge_modules)).write(scope, place[0], key, fields, now)
    finally:
        database.close()


def _part(said: str, kind: str) -> str | int:
    """The digits of a text are a text; those of a number are a number."""
    return int(said) if kind not in WORDS and NUMBER.fullmatch(said) else said


@contextmanager
def _opened(settings: Settings, *, made: bool = False) -> Iterator[tuple[Connection, int]]:
    """made: the server is begun here, if there is none."""
    if made:
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    else:
        _check_is_there(settings)
    database = open_database(settings.url)
    now = SystemClock().now()
    try:
        prepare(database, now)
        with database.writing() as connection:
            yield connection, now
    finally:
        database.close()


def _check_is_there(settings: Settings) -> None:
    """Opening a database of SQLite that is not there would make one."""
    file = sqlite_file(settings.url)
    if file is not None and not file.is_file():
        raise Misused(f"there is no server in {settings.data}", hint="--data DIR, as `backhaul serve` was given it")
