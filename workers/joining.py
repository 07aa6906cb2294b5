"""Joining: make the folder and the database a replica of a server (`init`), or bring a replica up to date.

Whatever can be refused is asked before anything is written: the settings, the remote's URL, the database (which is
opened read-only for that), the tables, the server, and the code. Then the token and backhaul.toml are written, and
last the database becomes a replica, in one transaction: a crash in between leaves a folder in which `init` can be
said again, with the same code.
"""

from __future__ import annotations

import json
import sqlite3
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DatabaseError

from backhaul.clock import Clock
from backhaul.database import looking, on_server, open_database, sqlite_file, translated
from backhaul.errors import (
    AlreadyInitialised,
    ConfigurationInvalid,
    Misused,
    Refused,
    SignInRequired,
    TableUnfit,
    TableUnknown,
)
from backhaul.remotes.http import HttpRemote
from backhaul.replica import checkpoint, recover
from backhaul.replica.enrol import Enrolled, Renewed, enrol, renew, wanted_tables
from backhaul.replica.strategies import Rules
from backhaul.wire import Registered, Table, Versions
from config.credentials import forget_nonce, keeper, nonce_of, read_identity
from config.fresh import write_fresh
from config.loading import FILE, load, place_of
from config.schedule import ensure_standing
from config.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the new replica shall be. name: for people, in the server's list. tables: none means all that can be."""

    database: str
    remote: str
    code: str
    name: str
    tables: Sequence[str] = ()


def join(home: Path, wanted: Wanted, clock: Clock) -> Enrolled:
    """Raises what `enrol` raises, and ConfigurationInvalid, RemoteInsecure, Unreachable: nothing is changed then."""
    settings = load(home, initialised=False)
    settings = settings.model_copy(
        update={
            "replica": settings.replica.model_copy(update={"database": wanted.database, "remote": wanted.remote}),
        }
    )
    _check_settings(home, wanted)
    remote = _Remembering(wanted.remote, allow_plain=settings.replica.allow_plain_http)
    try:
        _check_database(settings, wanted.tables)
        _check_server(remote)
        return _join(settings, wanted, remote, clock)
    finally:
        remote.close()


def bring_up_to_date(settings: Settings, names: Sequence[str], clock: Clock) -> Renewed:
    """Renew the capture of a replica whose tables were altered, and track more of them. Raises as `renew` does."""
    replica = settings.replica
    identity = read_identity(settings.state)
    remote = HttpRemote(replica.remote, identity.token, allow_plain=replica.allow_plain_http)
    remote.belong(identity.replica, keeper(settings.state))
    database = open_database(settings.database_url)
    try:
        recover.be_oneself(database, remote)
        with _lines_told(settings):
            renewed = renew(database, remote, names=names, rules=_rules(settings))
        with database.writing() as connection:
            ensure_standing(connection, settings, clock.now())
        return renewed
    finally:
        remote.close()
        database.close()


def _rules(settings: Settings) -> dict[str, Rules]:
    return {name: section.rules for name, section in settings.tables.items()}


@contextmanager
def _lines_told(settings: Settings) -> Iterator[None]:
    """What cannot be in `[tables]` is told with its line."""
    try:
        yield
    except (TableUnfit, TableUnknown) as error:
        if error.where:
            error.args = (f"{place_of(settings.home, error.where)}: {error}",)
        raise


def holds_a_replica(settings: Settings) -> bool:
    """Whether the database that the settings name is a replica; it is only read."""
    if not settings.replica.database:
        return False
    file = sqlite_file(settings.database_url)
    if file is not None and not file.is_file():
        return False
    with _looking(settings.database_url) as connection:
        return checkpoint.exists(connection)


class _Remembering(HttpRemote):
    """Spends the code once: it is spent before the database is opened for writing, and `enrol` asks again."""

    _registered: Registered | None = None

    def register(
        self, code: str, tables: Sequence[Table], name: str, *, was: str = "", nonce: str = "", knows: Versions = ()
    ) -> Registered:
        if self._registered is None:
            self._registered = super().register(code, tables, name, was=was, nonce=nonce, knows=knows)
        return self._registered


def _join(settings: Settings, wanted: Wanted, remote: HttpRemote, clock: Clock) -> Enrolled:
    with _looking(settings.database_url) as connection:
        found, _ = wanted_tables(connection, wanted.tables, _rules(settings))
    remote.belong(None, keeper(settings.state))
    try:
        remote.register(wanted.code, found, wanted.name, nonce=nonce_of(settings.state, wanted.code))
    except Refused:
        forget_nonce(settings.state)  # an answer, and no replica: nothing of this try is left
        raise
    written = _write_settings(settings.home, wanted)
    database = open_database(settings.database_url)
    try:
        enrolled = enrol(
            database,
            remote,
            code=wanted.code,
            url=wanted.remote,
            home=str(settings.home),
            name=wanted.name,
            names=wanted.tables,
            clock=clock,
            rules=_rules(settings),
        )
        with database.writing() as connection:
            ensure_standing(connection, settings, clock.now())
        forget_nonce(settings.state)
    except BaseException:
        _take_back(settings, written)
        raise
    finally:
        database.close()
    return enrolled


def _check_settings(home: Path, wanted: Wanted) -> None:
    """A backhaul.toml that is there already must say the same, or nothing, of the replica."""
    said = load(home, initialised=False).replica
    for field, known, given in (("database", said.database, wanted.database), ("remote", said.remote, wanted.remote)):
        if known and known != given:
            raise AlreadyInitialised(
                f"{home.resolve() / FILE} is there already, and names another {field}: {known}",
                hint="backhaul status shows the replica; a second one needs a folder of its own (--home)",
            )
        if not known and _names_a_replica(home / FILE):
            raise ConfigurationInvalid(
                f"{home.resolve() / FILE}: [replica] says nothing of the {field}",
                hint=f'write {field} = "{given}" there, or take the whole section out',
            )


def _names_a_replica(file: Path) -> bool:
    return file.exists() and "replica" in tomllib.loads(file.read_text("utf-8"))


def _check_database(settings: Settings, tables: Sequence[str]) -> None:
    url = settings.database_url
    file = sqlite_file(url)
    if file is None and not on_server(url):
        raise ConfigurationInvalid("the database of a replica is kept", hint="--database sqlite:///FILE")
    if file is not None and not file.is_file():
        raise ConfigurationInvalid(
            f"there is no database {file}",
            hint="--database sqlite:///FILE, from the folder, or sqlite:////ABSOLUTE/FILE",
        )
    with _looking(url) as connection:
        if checkpoint.exists(connection):
            known = checkpoint.read(connection)
            raise AlreadyInitialised(
                f"this database is replica {known.replica} of {known.remote} already; nothing was changed",
                hint="after altering tables run `backhaul init` without --remote and --code",
            )
        with _lines_told(settings):
            found, _ = wanted_tables(connection, tables, _rules(settings))
    if not found:
        raise Misused("there is no table to sync", hint="create the tables first; each needs a primary key")


def _check_server(remote: HttpRemote) -> None:
    """A Backhaul server answers whoever has no token with just that. Raises Unreachable for anything else."""
    with suppress(SignInRequired):
        remote.digest()


@contextmanager
def _looking(url: str) -> Iterator[Connection]:
    """A connection that changes nothing: a file that is opened as ours gets another journal mode."""
    file = sqlite_file(url)
    if file is None:
        with looking(url) as connection:
            yield connection
        return

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True)

    engine = create_engine("sqlite://", creator=connect)
    try:
        with translated(), engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA query_only = ON")
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
            yield connection
    except DatabaseError as error:
        raise ConfigurationInvalid(f"{file}: {error.orig}", hint="name a SQLite database that can be read") from error
    finally:
        engine.dispose()


def _write_settings(home: Path, wanted: Wanted) -> str | None:
    """Returns what backhaul.toml held before; None when there was none."""
    file = home / FILE
    if not file.exists():
        write_fresh(home, database=wanted.database, remote=wanted.remote)
        return None
    before = file.read_text("utf-8")
    if not _names_a_replica(file):
        section = f"\n[replica]\ndatabase = {json.dumps(wanted.database)}\nremote = {json.dumps(wanted.remote)}\n"
        file.write_text(before.rstrip("\n") + "\n" + section, "utf-8")
    return before


def _take_back(settings: Settings, before: str | None) -> None:
    (settings.state / "token").unlink(missing_ok=True)
    if before is None:
        (settings.home / FILE).unlink(missing_ok=True)
    else:
        (settings.home / FILE).write_text(before, "utf-8")
