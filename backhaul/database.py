"""The database edge: how Backhaul opens a database, begins a transaction, and what foreign errors become.

SQLite is kept in WAL mode with a busy timeout, and every writing transaction of ours is a BEGIN IMMEDIATE: a read
transaction that turns into a writing one cannot wait for its turn and fails with "database is locked" instead.
Our own connections run with synchronous=FULL: what was sent under a number must not be forgotten in a power cut, or
the number would be given out twice. An app's own connections keep the setting they have (SQLite's default is FULL).
"""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, Pool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from backhaul.errors import ConfigurationInvalid, DatabaseBusy, Refused

PATIENCE_MS = 10_000  # for a lock
NORMAL = 1  # PRAGMA synchronous: in WAL mode, a commit does not wait for the disk
# A server that is gone without a word is noticed: a connection is made within 5 s, what was sent is confirmed within
# 30 s by the machine there, which is asked for a sign of life where nothing is sent for half a minute.
SIGNS_OF_LIFE = {
    "connect_timeout": 5,
    "tcp_user_timeout": 30_000,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
WAL_PAUSE_SECONDS = 0.01
PRIMARY_CODE = 0xFF  # of an extended result code (https://www.sqlite.org/rescode.html)
PASSING = ("08", "40", "53", "57", "58")  # classes of PostgreSQL's errors that time heals: of connections, of
# transactions that meet, of disk, memory and connections that are used up, of a server that stops or cannot read
DISK_FULL = "53100"
LOCKED = "55P03"  # a lock did not come in time
OLDEST_SQLITE = (3, 38)  # RETURNING, UPDATE FROM, and JSON functions
FIND_TEXT = "correct that text in the app's own table; `SELECT hex(column)` shows its bytes"


class Database:
    """An engine with two ways in: `reading` (one snapshot) and `writing` (one transaction, committed at the end)."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.sqlite = engine.dialect.name == "sqlite"

    @contextmanager
    def writing(self, *, lasting: bool = True) -> Iterator[Connection]:
        """Raises DatabaseBusy when the database is locked or full; nothing of the transaction stands then.

        lasting: whether the commit waits for the disk (SQLite). One that does not outlives every crash of a process,
        but not each power cut; it is for what costs nothing but another try when it is forgotten.
        """
        with translated(), self.engine.connect() as connection, self._not_waiting(connection, lasting):
            connection.execution_options(backhaul_begin="IMMEDIATE")
            with connection.begin():
                yield connection

    @contextmanager
    def _not_waiting(self, connection: Connection, lasting: bool) -> Iterator[None]:
        driver: Any = connection.connection.driver_connection if self.sqlite and not lasting else None
        if driver is None:
            yield
            return
        before = connection.info.get("synchronous")
        if before is None:  # once for each connection: a run asks for this, and what it asks costs
            (before,) = driver.execute("PRAGMA synchronous").fetchone()
            connection.info["synchronous"] = before
        if before <= NORMAL:
            yield
            return
        driver.execute(f"PRAGMA synchronous = {NORMAL}")
        try:
            yield
        finally:
            driver.execute(f"PRAGMA synchronous = {before}")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with translated(), self.engine.connect() as connection:
            if self.sqlite:
                connection.execution_options(backhaul_begin="DEFERRED")
            else:  # which the driver says with the BEGIN, and not in a statement of its own
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str | URL, *, poolclass: type[Pool] | None = None, patience_ms: int = PATIENCE_MS) -> Database:
    """A database of ours at a SQLAlchemy URL. patience_ms: how long a transaction waits for a lock.

    Raises ConfigurationInvalid for a URL that cannot be used.
    """
    engine = _engine(_parsed(url), poolclass, patience_ms)
    if engine.dialect.name == "sqlite":
        _check_version(sqlite3.sqlite_version_info)
        _prepare_sqlite(engine, patience_ms)
    elif engine.dialect.name != "postgresql":
        raise ConfigurationInvalid(
            f"{engine.dialect.name} is not supported", hint="use sqlite:///FILE or postgresql+psycopg://HOST/NAME"
        )
    return Database(engine)


def sqlite_file(url: str | URL) -> Path | None:
    """The file behind a SQLite URL; None for memory and for other databases."""
    parsed = _parsed(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        return None
    return Path(parsed.database)


def on_server(url: str | URL) -> bool:
    """Whether it is a database of PostgreSQL."""
    return _parsed(url).get_backend_name() == "postgresql"


@contextmanager
def looking(url: str | URL) -> Iterator[Connection]:
    """A connection to a database of PostgreSQL that cannot change it. Raises ConfigurationInvalid when it cannot be
    reached, or not with this URL."""
    engine = _engine(_parsed(url), NullPool, PATIENCE_MS)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            yield connection
    except OperationalError as error:
        reason = str(error.orig).strip().partition("\n")[0]
        raise ConfigurationInvalid(
            f"the database cannot be opened: {reason}", hint="postgresql://USER@HOST/NAME of a database that is there"
        ) from error
    finally:
        engine.dispose()


@contextmanager
def translated() -> Iterator[None]:
    """Errors of the database that only time heals become DatabaseBusy; the others are bugs and stay as they are."""
    try:
        yield
    except sqlite3.OperationalError as error:  # of what is asked past SQLAlchemy
        raise _translation(OperationalError(None, None, error)) from error
    except OperationalError as error:
        if "decode" in str(error.orig):  # the driver's message quotes the row
            raise Refused("the database holds text that is not UTF-8", problem="not-utf8", hint=FIND_TEXT) from None
        raise _translation(error) from error


def cut(driver: Any) -> None:
    """End a connection to PostgreSQL that another thread waits on, and lets go of then. None, and one that is closed,
    are nothing to end."""
    with (
        suppress(Exception),  # the driver's own, when it is closed meanwhile
        closing(socket.socket(fileno=os.dup(driver.fileno()))) as connection,
    ):
        connection.shutdown(socket.SHUT_RDWR)


def in_autocommit(driver: Any) -> bool:
    """Whether each statement commits by itself (sqlite3: isolation_level None and no BEGIN; autocommit, 3.12)."""
    if getattr(driver, "autocommit", None) is True:
        return True
    return getattr(driver, "isolation_level", "") is None and not getattr(driver, "in_transaction", True)


def _translation(error: OperationalError) -> Exception:
    if getattr(error.orig, "sqlite_errorname", "") == "SQLITE_BUSY_SNAPSHOT":
        return DatabaseBusy(
            "another program has written since this transaction first read, and so it cannot write any more",
            hint="roll back and try again; a transaction that is to write begins with BEGIN IMMEDIATE, or with a write",
        )
    said, state = str(error.orig), getattr(error.orig, "sqlstate", None) or ""
    if "locked" in said or "busy" in said:
        return DatabaseBusy("the database is locked by another program", hint="try again; find the long transaction")
    if "full" in said or state == DISK_FULL:
        return DatabaseBusy("the disk is full", hint="make room; nothing that was committed is lost")
    if "disk I/O" in said:  # what SQLite says of a quota, or of a file that may not grow
        return DatabaseBusy("the disk refuses to read or write", hint="look for a quota that is used up, or a bad disk")
    if state == LOCKED:
        return DatabaseBusy("another program is writing the same rows", hint="try again; find the long transaction")
    if state[:2] in PASSING:
        return DatabaseBusy(f"the database cannot do this now: {said.splitlines()[0]}", hint="try again")
    if "timeout expired" in said:  # libpq's, and the driver's, of a connection that was not made in time
        return DatabaseBusy("the database does not answer", hint="try again; see whether its machine can be reached")
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return DatabaseBusy("the connection to the database was lost", hint="try again")
    return error


def _parsed(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigurationInvalid(
            "the database URL cannot be read", hint="sqlite:///FILE or postgresql+psycopg://HOST/NAME"
        ) from error
    if parsed.get_backend_name() == "postgresql":  # whichever driver the app uses
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed


def _engine(url: URL, poolclass: type[Pool] | None, patience_ms: int) -> Engine:
    postgresql = url.get_backend_name() == "postgresql"
    # A plan that is kept was made for an outbox that was empty, and goes through it once for each change of a batch.
    options: dict[str, Any] = {}
    if postgresql:
        patience = f"-c lock_timeout={patience_ms}"  # as on SQLite: an app may sleep in a transaction
        unsaid = {name: value for name, value in SIGNS_OF_LIFE.items() if name not in url.query}
        options = {"prepare_threshold": None, "options": f"{url.query.get('options', '')} {patience}".strip(), **unsaid}
    try:
        return create_engine(
            url, hide_parameters=True, pool_pre_ping=postgresql, poolclass=poolclass, connect_args=options
        )
    except ModuleNotFoundError as error:
        raise ConfigurationInvalid(f"{error.name} is not installed", hint="pip install 'backhaul[postgres]'") from error


def _check_version(version: tuple[int, ...]) -> None:
    if version < OLDEST_SQLITE:
        said, oldest = (".".join(map(str, numbers)) for numbers in (version, OLDEST_SQLITE))
        raise ConfigurationInvalid(f"SQLite {said} is too old", hint=f"use a Python with SQLite {oldest} or newer")


def _use_wal(connection: Any, patience_ms: int) -> None:
    """A change to WAL mode that meets another writer, or another such change, is refused at once: SQLite's busy timeout
    does not count there. Whoever starts together with others on a new database meets that."""
    until = time.monotonic() + patience_ms / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & PRIMARY_CODE != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(WAL_PAUSE_SECONDS)


def _prepare_sqlite(engine: Engine, patience_ms: int) -> None:
    @event.listens_for(engine, "connect")
    def _opened(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, or the driver would say it too late
        connection.execute(f"PRAGMA busy_timeout = {patience_ms}")
        _use_wal(connection, patience_ms)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = OFF")  # the default, unless SQLite was built otherwise: a CASCADE
        # would take along here what the server has kept

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        mode = connection.get_execution_options().get("backhaul_begin", "IMMEDIATE")
        driver: Any = connection.connection.driver_connection
        driver.execute(f"BEGIN {mode}")  # past SQLAlchemy, whose way takes longer than the BEGIN
