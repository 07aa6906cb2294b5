"""What `backhaul doctor` looks at. A check asks one thing and says ok, warn or fail, with what to do about it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from sqlalchemy import Connection

from backhaul.clock import Clock, offset_said
from backhaul.database import Database
from backhaul.errors import BackhaulError
from backhaul.media import contents
from backhaul.media.tidy import look
from backhaul.remotes.base import Remote
from backhaul.replica import aside, attachments, checkpoint, conflicts, inspection, tables
from backhaul.work.roster import Worker
from config.broker import EmbeddedBroker
from config.media import store_of
from config.settings import Settings

LARGE_OFFSET_MS = 60_000
INIT = "run: backhaul init"
DEFAULT_PORTS = {"redis": 6379, "rediss": 6379, "amqp": 5672, "amqps": 5671, "pyamqp": 5672}


@dataclass(frozen=True)
class Finding:
    check: str
    verdict: Literal["ok", "warn", "fail"]
    said: str
    hint: str | None = None


@dataclass(frozen=True, kw_only=True)
class Patient:
    """remote, workers: asked when it is their turn, for asking may fail."""

    settings: Settings
    database: Database
    remote: Callable[[], Remote]
    workers: Callable[[Connection], list[Worker]]
    clock: Clock


def examine(patient: Patient) -> Iterator[Finding]:
    for check in (
        _database,
        _capture,
        _app_triggers,
        _aside,
        _conflicts,
        _left_out,
        _media,
        _media_columns,
        _token,
        _server,
        _broker,
        _workers,
    ):
        try:
            yield check(patient)
        except BackhaulError as error:
            yield Finding(check.__name__.strip("_").replace("_", " "), "fail", str(error), error.hint)


def _database(patient: Patient) -> Finding:
    with patient.database.reading() as connection:
        known = checkpoint.read(connection)
        if not patient.database.sqlite:
            version = connection.exec_driver_sql("SHOW server_version").scalar_one()
            return Finding("database", "ok", f"replica {known.replica} of scope {known.scope!r}; PostgreSQL {version}")
        mode = str(connection.exec_driver_sql("PRAGMA journal_mode").scalar_one())
    if mode != "wal":
        hint = "readers and writers wait for each other: take away what sets another journal mode"
        return Finding("database", "warn", f"replica {known.replica}; journal mode {mode}", hint)
    return Finding("database", "ok", f"replica {known.replica} of scope {known.scope!r}; journal mode wal")


def _capture(patient: Patient) -> Finding:
    with patient.database.reading() as connection:
        tracked = tables.all_tracked(connection)
        altered = tables.altered(connection, tracked)
        waiting = [one.table.name for one in tracked if one.backfill == "pending"]
    if altered:
        return Finding("capture", "fail", f"altered since init: {', '.join(altered)}", "run: backhaul init")
    if waiting:
        return Finding("capture", "ok", f"{len(tracked)} tables; the backfill has {len(waiting)} of them to go")
    return Finding("capture", "ok", f"{len(tracked)} tables, their triggers up to date")


def _app_triggers(patient: Patient) -> Finding:
    with patient.database.reading() as connection:
        tracked = [one.table.name for one in tables.all_tracked(connection)]
        found = inspection.app_triggers(connection, tracked)
    hint = 'they run again where a change arrives; if they write to synced tables: [tables.NAME] triggers = "mute"'
    return _none("app triggers", found, "none on synced tables", f"on synced tables: {', '.join(found)}", hint)


def _aside(patient: Patient) -> Finding:
    number = _counted(patient, aside.count)
    hint = "backhaul why TABLE KEY says what each one offends"
    said = f"{number} records of the server do not fit this database's schema"
    return _none("aside", number, "every record of the server fits", said, hint)


def _conflicts(patient: Patient) -> Finding:
    number = _counted(patient, conflicts.count)
    hint = "backhaul conflicts list shows them; what each one holds does not go out before"
    return _none("conflicts", number, "none waits", f"{number} wait for a person to decide", hint)


def _counted(patient: Patient, count: Callable[[Connection], int]) -> int:
    with patient.database.reading() as connection:
        return count(connection)


def _none(name: str, found: int | list[str], good: str, bad: str, hint: str) -> Finding:
    """There should be none of them."""
    return Finding(name, "warn", bad, hint) if found else Finding(name, "ok", good)


def _left_out(patient: Patient) -> Finding:
    with patient.database.reading() as connection:
        known = {one.table.name for one in tables.all_tracked(connection)}
        found, unfit = inspection.find_tables(connection)
    reasons = [str(one) for one in unfit]
    reasons += [f"table {one.name!r} is not synced" for one in found if one.name not in known]
    if reasons:
        return Finding("left out", "warn", "; ".join(reasons), "backhaul init --table NAME adds one")
    return Finding("left out", "ok", "every table is synced")


def _media(patient: Patient) -> Finding:
    store = store_of(patient.settings)
    with patient.database.reading() as connection:
        kept = contents.kept(connection)
        number, size = kept.contents, kept.bytes
    if number and not store.exists:
        hint = "put it back, or mount its disk: what waits in it cannot be sent"
        return Finding("media", "warn", f"{store.folder} is not there, and {number} files should be in it", hint)
    untidy = look(patient.database, store)
    said = f"{number} files are kept, {size} bytes"
    if not untidy.number:
        return Finding("media", "ok", said)
    left = f"{untidy.leftovers} unfinished, {len(untidy.orphans)} without a row, {len(untidy.dangling)} not there"
    return Finding("media", "warn", f"{said}; {left}", "backhaul media tidy; Beat does so once an hour")


def _media_columns(patient: Patient) -> Finding:
    with patient.database.reading() as connection:
        tracked = {one.table.name: one.media for one in tables.all_tracked(connection)}
        unread = [one for one in attachments.listed(connection) if one.reason is not None]
    said = {name: rule for name, table in patient.settings.tables.items() if table.media and (rule := table.media.rule)}
    differing = sorted(name for name, media in tracked.items() if media != said.get(name))
    if differing:
        return Finding("media columns", "warn", f"[tables.NAME.media] is another now: {', '.join(differing)}", INIT)
    hint = "backhaul media list says why; each is looked at again"
    bad = f"{len(unread)} files that rows name cannot be read"
    return _none("media columns", len(unread), "every file that a row names could be read", bad, hint)


def _token(patient: Patient) -> Finding:
    file = patient.settings.state / "token"
    try:
        mode = file.stat().st_mode & 0o777
    except FileNotFoundError:
        return Finding("token", "fail", f"{file} is not there", "put it back from a backup, or init a fresh copy")
    if mode & 0o077:
        return Finding("token", "fail", f"others may read {file} (mode {mode:o})", f"chmod 600 {file}")
    return Finding("token", "ok", "only its owner can read it")


def _server(patient: Patient) -> Finding:
    asked_at = patient.clock.now()
    digest = patient.remote().digest()
    answered_at = patient.clock.now()
    offset = digest.now - (asked_at + answered_at) // 2
    said = (
        f"{patient.settings.replica.remote} answers in {answered_at - asked_at} ms, its clock {offset:+} ms from ours"
    )
    if abs(offset) > LARGE_OFFSET_MS:
        hint = "set this machine's clock; stamps are corrected by the difference"
        return Finding("server", "warn", f"{said}: this machine's clock is {offset_said(offset)}", hint)
    return Finding("server", "ok", said)


def _broker(patient: Patient) -> Finding:
    url = patient.settings.broker.url
    if url is None:
        if EmbeddedBroker(patient.settings.state).answers():
            return Finding("broker", "ok", "the embedded redis-server answers")
        return Finding("broker", "warn", "the embedded redis-server does not run", "backhaul up starts it")
    parts = urlsplit(url)
    place = (parts.hostname or "localhost", parts.port or DEFAULT_PORTS.get(parts.scheme.partition("+")[0], 6379))
    began = time.monotonic()
    try:
        with socket.create_connection(place, timeout=3):
            took = (time.monotonic() - began) * 1000
    except OSError as error:
        hint = "nothing is lost; start it, or change [broker] url"
        return Finding("broker", "fail", f"{place[0]}:{place[1]} cannot be reached: {error.strerror or error}", hint)
    return Finding("broker", "ok", f"{place[0]}:{place[1]} takes a connection in {took:.0f} ms")


def _workers(patient: Patient) -> Finding:
    with patient.database.reading() as connection:
        alive = patient.workers(connection)
    served = {state.name for worker in alive for state in worker.queues}
    unserved = [name for name in patient.settings.queues if name not in served]
    if unserved:
        return Finding("workers", "warn", f"no live worker serves {', '.join(unserved)}", "backhaul up")
    return Finding("workers", "ok", f"{len(alive)} alive, every queue is served")
