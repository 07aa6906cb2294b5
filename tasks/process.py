"""What a task needs of its process: the database, opened once, and the remotes, once for each thread.

A worker's children are forked from a process that has no connection open (workers/database.py), and none of this is
opened before the fork.
"""

from __future__ import annotations

import os
import threading
from typing import Any, TypeVar

from celery.signals import worker_process_shutdown, worker_shutdown

from backhaul.clock import SystemClock
from backhaul.database import Database, open_database
from backhaul.remotes.endpoint import Endpoint
from backhaul.remotes.http import HttpRemote
from backhaul.remotes.traffic import Meter
from backhaul.remotes.tus import TusRemote
from backhaul.work.metering import meter_of
from config.credentials import keeper, read_identity, read_token
from config.machine import node_of
from config.settings import Settings

AnyRemote = TypeVar("AnyRemote", HttpRemote, TusRemote)

_databases: dict[tuple[int, str], Database] = {}
_meters: dict[tuple[int, str], Meter | None] = {}
_opening = threading.Lock()
_of_this_thread = threading.local()


def database(settings: Settings) -> Database:
    key = (os.getpid(), settings.database_url)
    with _opening:
        if key not in _databases:
            _databases[key] = open_database(settings.database_url)
        return _databases[key]


def meter(settings: Settings) -> Meter | None:
    """Of this process: what its threads send and receive is counted together."""
    key, opened = (os.getpid(), settings.database_url), database(settings)
    with _opening:
        if key not in _meters:
            _meters[key] = meter_of(opened, SystemClock(), node_of(settings))
        return _meters[key]


def write_traffic(settings: Settings) -> None:
    """What this process has counted and not written down yet."""
    counting = _meters.get((os.getpid(), settings.database_url))
    if counting is not None:
        counting.write()


def end(**_: Any) -> None:
    """Of this process, as Celery says it: nothing that was counted is lost."""
    for (process, _url), counting in list(_meters.items()):
        if process == os.getpid() and counting is not None:
            counting.write()


def remote(settings: Settings) -> HttpRemote:
    """Raises SignInRequired when there is no token. A new token is a new connection."""
    identity = read_identity(settings.state)
    remote = _kept(HttpRemote, settings, identity.token)
    if remote.signed_in_as is None:
        remote.belong(identity.replica, keeper(settings.state))
    return remote


def media_remote(settings: Settings) -> TusRemote:
    return _kept(TusRemote, settings, read_token(settings.state))


def _kept(kind: type[AnyRemote], settings: Settings, token: str) -> AnyRemote:
    known = getattr(_of_this_thread, kind.__name__, None)
    if known is None or known[0] != (os.getpid(), token):
        endpoint = Endpoint(database(settings), SystemClock(), meter(settings), media=kind is TusRemote)
        made = kind(settings.replica.remote, token, allow_plain=settings.replica.allow_plain_http, endpoint=endpoint)
        known = ((os.getpid(), token), made)
        setattr(_of_this_thread, kind.__name__, known)
    kept: AnyRemote = known[1]
    return kept


def _new_locks() -> None:
    global _opening
    _opening = threading.Lock()


os.register_at_fork(after_in_child=_new_locks)
worker_process_shutdown.connect(end)
worker_shutdown.connect(end)
