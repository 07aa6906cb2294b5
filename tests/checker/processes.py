"""What runs in the checker's world as processes of their own: the server, each replica's sync, each app.

They are forked from one process that has imported everything, so that one more costs a few milliseconds, and are killed
with SIGKILL whenever a fault says so.
"""

from __future__ import annotations

import multiprocessing
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from random import Random
from typing import Any

from backhaul.backoff import Backoff
from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.errors import TryLater
from backhaul.remotes.http import HttpRemote
from backhaul.replica import pull, push
from backhaul.server.serve import serve
from backhaul.server.settings import Settings
from tests.checker.history import Notebook
from tests.checker.session import Session
from tests.replicas import Undisturbed

RETRY = Backoff(initial_ms=20, most_ms=200)
TIMEOUT = (1.0, 3.0)
PAUSE = 0.01

FORKS: Any = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.checker.processes"])


@dataclass(frozen=True, kw_only=True)
class Place:
    """A replica, as its processes are told of it. remote: the server's URL, by its proxy. page, batch: of its journeys.

    own: the keys that its apps write. clock_offset_ms: what its machine's clock is off by now.
    """

    url: str
    remote: str
    token: str
    page: int
    batch: int
    own: list[str]
    clock_offset_ms: Synchronized[int]


@dataclass
class ShiftedClock:
    offset_ms: Synchronized[int]

    def now(self) -> int:
        return SystemClock().now() + self.offset_ms.value


def start(target: Any, *given: Any) -> BaseProcess:
    process: BaseProcess = FORKS.Process(target=target, args=given, daemon=True)
    process.start()
    return process


def kill(process: BaseProcess) -> None:
    """kill -9."""
    process.kill()
    process.join(10)
    process.close()


# ------------------------------------------------------------------------------------------------ what they do


def serve_on(port: int, data: Path, database_url: str | None) -> None:
    serve(Settings(data=data, port=port, database_url=database_url))


def sync_on(place: Place, seed: float) -> None:
    """Push and pull, in whichever order, until killed."""
    random, clock, context = Random(seed), ShiftedClock(place.clock_offset_ms), Undisturbed()
    database = open_database(place.url)
    remote = HttpRemote(place.remote, place.token, timeout=TIMEOUT)
    while True:
        with suppress(TryLater):
            if random.random() < 0.5:
                push.push(database, remote, clock=clock, context=context, batch=place.batch, retry=RETRY, alone=True)
            else:
                pull.pull(database, remote, clock=clock, context=context, limit=place.page)
        context.said.clear()
        time.sleep(PAUSE * random.random())


def work_on(place: Place, name: str, number: int, seed: float, notes: Path, ended: Event) -> None:
    """An app's transactions, each noted when it is committed, until all apps are told to end."""
    random, notebook = Random(seed), Notebook(notes)
    session = Session(place.url, name, number, random, own=place.own, hooked=True)
    while not ended.is_set():
        session.clock_offset_ms = place.clock_offset_ms.value
        notebook.note(session.transact())
        time.sleep(2 * PAUSE * random.random())
    session.close()
    notebook.close()
