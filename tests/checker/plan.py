"""What a world of the checker is to be, and what it is made of: replicas with their processes, backups of databases."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Literal

from tests.checker import processes
from tests.checker.processes import Place
from tests.faults.proxy import Proxy

PutBack = Literal["nobody", "replica", "server"]


@dataclass(kw_only=True)
class Member:
    """A replica with its processes and its own proxy. syncs: by their role, those that are not dead. sessions: of all
    apps that it ever had. ended: what tells its apps to end."""

    name: str
    place: Place
    between: Proxy
    syncs: dict[str, BaseProcess] = field(default_factory=dict)
    apps: list[BaseProcess] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    ended: Event = field(default_factory=lambda: processes.FORKS.Event())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """urls: of the replicas' databases, each empty. apps: how many on each. pauses: between faults, in seconds.

    shared: everyone writes every key, and the greatest value stands (`max`); else each replica has its own keys, and
    the last write stands.

    put_back: whose database is put back to a backup now and then (on SQLite), while the others go on.
    """

    seed: int
    urls: list[str]
    apps: int = 1
    seconds: float = 4.0
    pauses: tuple[float, float] = (0.1, 0.5)
    server_url: str | None = None
    clock_jumps: bool = False
    shared: bool = False
    put_back: PutBack = "nobody"


@dataclass(frozen=True, kw_only=True)
class Backup:
    """A copy of a database file. member: whose; None for the server. since: when it was begun, in nanoseconds."""

    file: Path
    copy: Path
    member: Member | None
    since: int

    def put_back(self) -> None:
        """Nobody has the file open."""
        for ending in ("-wal", "-shm"):
            Path(f"{self.file}{ending}").unlink(missing_ok=True)
        self.copy.replace(self.file)


def back_up(file: Path, copy: Path, member: Member | None) -> Backup:
    """As an operator does it, while everything runs."""
    copy.unlink(missing_ok=True)
    since = time.monotonic_ns()
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return Backup(file=file, copy=copy, member=member, since=since)
