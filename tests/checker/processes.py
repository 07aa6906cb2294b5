"""What runs in the checker's world as processes of their own: the server, each replica's pull and pushes, each app.

They are forked from one process that has imported everything, so that one more costs a few milliseconds, and are killed
with SIGKILL whenever a fault says so.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import c_int64
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
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
from config.credentials import keeper, read_identity
from tests.checker.history import Notebook
from tests.checker.session import Session
from tests.replicas import Undisturbed

RETRY = Backoff(initial_ms=20, most_ms=200)
TIMEOUT = (1.0, 3.0)
PAUSE = 0.01
IDLE = 0.1  # when there was nothing to do

FORKS: Any = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.checker.processes"])


@dataclass(frozen=True, kw_only=True)
class Place:
    """A replica, as its processes are told of it. remote: the server's URL, by its proxy. page, batch: of its journeys.

    state: the folder of its token. own: the keys that its apps write. clock_offset_ms: what its machine's clock is off
    by now.
    """

    url: str
    remote: str
    state: Path
    page: int
    batch: int
    own: list[str]
    clock_offset_ms: c_int64


@dataclass
class ShiftedClock:
    offset_ms: c_int64

    def now(self) -> int:
        return SystemClock().now() + self.offset_ms.value


def start(target: Any, *given: Any) -> BaseProcess:
    process: BaseProcess = FORKS.Process(target=target, args=given, daemon=True)
    process.start()
    return process


def shared_number() -> c_int64:
    """Without a lock: who is killed while he holds one keeps it."""
    number: c_int64 = FORKS.RawValue(c_int64, 0)
    return number


def kill(process: BaseProcess) -> None:
    """kill -9."""
    process.kill()
    process.join()
    process.close()


# ------------------------------------------------------------------------------------------------ what they do


def serve_on(port: int, data: Path, database_url: str | None) -> None:
    serve(Settings(data=data, port=port, database_url=database_url))


ROLES = ("pull", "push", "push beside")  # the last one does not know whether it is the only push


def sync_on(place: Place, role: str, seed: float) -> None:
    """Pull or push, again and again, until killed; each run reads the token anew, as a worker does."""
    random, clock, context = Random(seed), ShiftedClock(place.clock_offset_ms), Undisturbed()
    database = open_database(place.url)
    while True:
        done = 0
        with suppress(TryLater), remote_of(place) as remote:
            if role == "pull":
                done = pull.pull(database, remote, clock=clock, context=context, limit=place.page).records
            else:
                alone, batch = role == "push", place.batch
                sent = push.push(database, remote, clock=clock, context=context, batch=batch, retry=RETRY, alone=alone)
                done = sent.acked
        context.said.clear()
        time.sleep((PAUSE if done else IDLE) * random.random())


@contextmanager
def remote_of(place: Place) -> Iterator[HttpRemote]:
    identity = read_identity(place.state)
    remote = HttpRemote(place.remote, identity.token, timeout=TIMEOUT)
    remote.belong(identity.replica, keeper(place.state))
    try:
        yield remote
    finally:
        remote.close()


def work_on(place: Place, name: str, number: int, seed: float, notes: Path, ended: Event) -> None:
    """An app's transactions, each noted when it is committed, until it is told to end."""
    random, notebook = Random(seed), Notebook(notes)
    session = Session(place.url, name, number, random, own=place.own, hooked=True)
    while not ended.is_set():
        session.clock_offset_ms = place.clock_offset_ms.value
        notebook.note(session.transact())
        time.sleep(2 * PAUSE * random.random())
    session.close()
    notebook.close()
