"""The replica that a command acts on: its settings, its database, its bell and its server, each opened when wanted."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from backhaul.clock import SystemClock
from backhaul.database import Database, open_database, sqlite_file
from backhaul.errors import ConfigurationInvalid
from backhaul.work import roster
from backhaul.work.conditions import Condition
from backhaul.work.roster import Worker
from config.loading import FILE, load
from config.machine import conditions_of, node_of
from config.settings import Settings

if TYPE_CHECKING:
    from backhaul.remotes.http import HttpRemote
    from config.bell import CeleryBell


class Here:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = SystemClock()

    @property
    def now(self) -> int:
        return self.clock.now()

    @cached_property
    def database(self) -> Database:
        """Raises ConfigurationInvalid when its file is gone: opening it would make an empty one."""
        file = sqlite_file(self.settings.database_url)
        if file is not None and not file.is_file():
            raise ConfigurationInvalid(
                f"the database {file} is not there",
                hint=f"put it back, or say where it is in {FILE}, [replica] database",
            )
        return open_database(self.settings.database_url)

    @cached_property
    def remote(self) -> HttpRemote:
        from backhaul.remotes.endpoint import Endpoint
        from backhaul.remotes.http import HttpRemote
        from backhaul.work.metering import meter_of
        from config.credentials import keeper, read_identity

        replica, identity = self.settings.replica, read_identity(self.settings.state)
        meter = meter_of(self.database, self.clock, node_of(self.settings))
        remote = HttpRemote(
            replica.remote,
            identity.token,
            allow_plain=replica.allow_plain_http,
            endpoint=Endpoint(self.database, self.clock, meter),
        )
        remote.belong(identity.replica, keeper(self.settings.state))
        return remote

    @cached_property
    def bell(self) -> CeleryBell:
        from config.bell import CeleryBell

        return CeleryBell(self.settings)

    def conditions(self, connection: Connection) -> tuple[Mapping[str, Condition], frozenset[str]]:
        return conditions_of(self.settings)(connection, self.now)

    def close(self) -> None:
        for opened in ("bell", "remote", "database"):
            if opened in self.__dict__:
                self.__dict__[opened].close()


@contextmanager
def opened(home: Path | None) -> Iterator[Here]:
    """Raises NotInitialised, ConfigurationInvalid."""
    here = Here(load(home))
    try:
        yield here
    finally:
        here.close()


def live_workers(connection: Connection, now: int, node: str) -> Sequence[Worker]:
    """Those that were heard of lately, without the ones of this machine whose process is gone: killed, they say no
    goodbye. node: of this machine."""
    return [worker for worker in roster.alive(connection, now) if not _is_gone(worker, node)]


def is_alive(worker: Worker, now: int, node: str) -> bool:
    """Of a worker that was heard of at some time. node: of this machine."""
    return worker.heard_of(now) and not _is_gone(worker, node)


def _is_gone(worker: Worker, node: str) -> bool:
    """Only of this node is it known which processes there are: another's host may well have the same name."""
    if worker.node != node or worker.name.partition("@")[2] != socket.gethostname():
        return False
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
