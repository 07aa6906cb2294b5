"""What a task needs of its process: the database, opened once, and the remotes, once for each thread.

A worker's children are forked from a process that has no connection open (workers/database.py), and none of this is
opened before the fork.
"""

from __future__ import annotations

import os
import threading
from typing import TypeVar

from backhaul.clock import SystemClock
from backhaul.database import Database, open_database
from backhaul.remotes.endpoint import Endpoint
from backhaul.remotes.http import HttpRemote
from backhaul.remotes.tus import TusRemote
from config.credentials import keeper, read_identity, read_token
from config.settings import Settings

AnyRemote = TypeVar("AnyRemote", HttpRemote, TusRemote)

_databases: dict[tuple[int, str], Database] = {}
_opening = threading.Lock()
_of_this_thread = threading.local()


def database(settings: Settings) -> Database:
    key = (os.getpid(), settings.database_url)
    with _opening:
        if key not in _databases:
            _databases[key] = open_database(settings.database_url)
        return _databases[key]


def remote(settings: Settings) -> HttpRemote:
    """Raises SignInRequired when there is no token. A new token is a new connection."""
    remote = _kept(HttpRemote, settings)
    if remote.signed_in_as is None:
        remote.belong(read_identity(settings.state).replica, keeper(settings.state))
    return remote


def media_remote(settings: Settings) -> TusRemote:
    return _kept(TusRemote, settings)


def _kept(kind: type[AnyRemote], settings: Settings) -> AnyRemote:
    token = read_token(settings.state)
    known = getattr(_of_this_thread, kind.__name__, None)
    if known is None or known[0] != (os.getpid(), token):
        endpoint = Endpoint(database(settings), SystemClock())
        made = kind(settings.replica.remote, token, allow_plain=settings.replica.allow_plain_http, endpoint=endpoint)
        known = ((os.getpid(), token), made)
        setattr(_of_this_thread, kind.__name__, known)
    kept: AnyRemote = known[1]
    return kept


def _new_locks() -> None:
    global _opening
    _opening = threading.Lock()


os.register_at_fork(after_in_child=_new_locks)
