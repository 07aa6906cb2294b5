"""A replica's folder with real workers and beats in it, as processes, for tests.

The folder has host functions (`note`, `fail`, `later`, `slow`) that write what they did into the file `notes`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from celery import Celery

from backhaul.bell import Ring
from backhaul.clock import SystemClock
from backhaul.database import Database, open_database
from backhaul.migrations import upgrade_replica
from backhaul.work import conditions, ledger, roster
from backhaul.work.constraints import place
from backhaul.work.ledger import Work
from backhaul.work.request import WorkRequest
from config.bell import publish
from config.broker import EmbeddedBroker
from config.celery import make_app
from config.queues import declared
from config.settings import Settings, load
from tests.waiting import eventually

CONFIGURATION = """
[replica]
database = "sqlite:///shop.db"
remote = "http://127.0.0.1:1"
[queues.sync]
tags = ["connected"]
[queues.media]
tags = ["connected", "unmetered"]
[sync]
push_every = "1d"
push_flex = "1s"
pull_every = "1d"
pull_flex = "1s"
reconcile_every = "1d"
reconcile_flex = "1s"
[media]
requires = ["unmetered"]
[work]
modules = ["crew_functions"]
"""
FUNCTIONS = """
import os
import pathlib
import signal
import time
from backhaul.errors import TryLater
from backhaul.work.functions import function

NOTES = pathlib.Path(__file__).with_name("notes")

@function("note")
def note(given, context):
    with NOTES.open("a") as file:
        file.write(given["word"] + " " + (context.work.worker or "") + "\\n")

@function("later")
def later(given, context):
    raise TryLater("the printer is out of paper", retry_after_ms=60_000)

@function("fail")
def fail(given, context):
    raise ValueError("a bug\\n[parameters: a secret]")

@function("child")
def child(given, context):
    if not NOTES.exists():
        note({"word": "killed"}, context)
        os.kill(os.getpid(), signal.SIGKILL)
    note(given, context)

@function("slow")
def slow(given, context):
    note({"word": "begun"}, context)
    for _ in range(int(given["seconds"] * 10)):
        time.sleep(0.1)
        context.check()
    note({"word": "ended"}, context)
"""

ENDINGS: list[threading.Thread] = []
HANGING: list[str] = []


class Crew:
    """home: the replica's folder. Everything that is started is ended by `end`."""

    def __init__(self, home: Path, *, broker: str | None = None, configuration: str = CONFIGURATION) -> None:
        home.mkdir(exist_ok=True)
        (home / "backhaul.toml").write_text(configuration + (f'[broker]\nurl = "{broker}"\n' if broker else ""))
        (home / "crew_functions.py").write_text(FUNCTIONS)
        self.home = home
        self.settings: Settings = load(home)
        self.database: Database = open_database(self.settings.database_url)
        upgrade_replica(self.database)
        self.broker = EmbeddedBroker(self.settings.state)
        self.app: Celery = make_app(self.settings, current=False)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._names: list[str] = []

    # what runs

    def worker(self, name: str = "one", *options: str, queues: str | None = None) -> subprocess.Popen[bytes]:
        """A worker, ready."""
        arguments = ["worker", "-n", f"{name}@crew", "-c", "1", "-l", "info", "--without-mingle", *options]
        process = self._start(f"worker-{name}", *arguments, *(["-Q", queues] if queues else []))
        eventually(lambda: f"{name}@crew ready" in self.log(f"worker-{name}"), 30, f"worker {name} is ready", pause=0.1)
        return process

    def beat(self, name: str = "one") -> subprocess.Popen[bytes]:
        return self._start(f"beat-{name}", "beat", "-l", "info")

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("BACKHAUL_")}
        environment |= {"BACKHAUL_HOME": str(self.home), "C_FORCE_ROOT": "1", "PYTHONUNBUFFERED": "1"}
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "workers.app", *arguments],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        self._names.append(name)
        return process

    def end(self, *, now: bool = False) -> None:
        """Ask all of it to end. Whether it does is found out beside the next tests, and said by `check_endings`.

        now: wait for it; what the crew lives of is about to go.
        """
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        ending = threading.Thread(target=self._await_the_end, name=f"ending {self.home}")
        ending.start()
        ENDINGS.append(ending)
        if now:
            ending.join()
            check_endings()

    def _await_the_end(self) -> None:
        hanging = [name for process, name in zip(self._processes, self._names, strict=True) if not ends(process)]
        self.app.close()
        self.database.close()
        self.broker.end()
        HANGING.extend(f"{name} in {self.home} did not end: {self.log(name)[-6000:]}" for name in hanging)

    # what is done

    def enqueue(self, function: str = "note", *, requires: str = "connected", **given: Any) -> Work:
        """In the database only: nobody rings."""
        request = WorkRequest(
            task="backhaul.work", function=function, requires=frozenset(requires.split()), input=given or {"word": "x"}
        )
        queue = place(declared(self.settings), request.requires)
        with self.database.writing() as connection:
            return ledger.enqueue(connection, request, queue=queue.name, now=SystemClock().now())

    def ring(self, ring: Ring) -> None:
        publish(self.app, [ring])

    def set(self, **values: bool) -> None:
        with self.database.writing() as connection:
            for name, value in values.items():
                conditions.set_condition(connection, name, value, now=SystemClock().now())

    # what is seen

    def work(self, work: Work) -> Work:
        with self.database.reading() as connection:
            found = ledger.get(connection, work.id)
        assert found is not None
        return found

    def settled(self, work: Work, state: str = "SUCCEEDED", timeout: float = 15) -> Work:
        return eventually(
            lambda: found if (found := self.work(work)).state == state else None, timeout, f"{work.id} is {state}"
        )

    def queue(self, name: str, *, worker: str = "one") -> roster.QueueState | None:
        with self.database.reading() as connection:
            alive = roster.alive(connection, SystemClock().now(), 15_000)
        return next((one.serves(name) for one in alive if one.name == f"{worker}@crew"), None)

    def is_open(self, name: str, *, worker: str = "one") -> bool | None:
        state = self.queue(name, worker=worker)
        return None if state is None else state.open

    def waiting(self, queue: str) -> int:
        from workers.ringing import waiting_messages

        return waiting_messages(self.app, queue)

    def notes(self) -> list[str]:
        file = self.home / "notes"
        return file.read_text().splitlines() if file.exists() else []

    def log(self, name: str) -> str:
        file = self.home / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    @contextlib.contextmanager
    def events(self) -> Iterator[list[Mapping[str, Any]]]:
        """Celery's events while the block runs."""
        seen: list[Mapping[str, Any]] = []
        ready, ended = threading.Event(), threading.Event()
        thread = threading.Thread(target=self._listen, args=(seen.append, ready, ended), daemon=True)
        thread.start()
        assert ready.wait(10)
        try:
            yield seen
        finally:
            ended.set()
            thread.join(10)

    def _listen(self, see: Callable[[Any], None], ready: threading.Event, ended: threading.Event) -> None:
        with self.app.connection_for_read() as connection:
            receiver = self.app.events.Receiver(connection, handlers={"*": see})
            with receiver.consumer_context() as (own, _, _):
                ready.set()
                while not ended.is_set():
                    with contextlib.suppress(TimeoutError):
                        own.drain_events(timeout=0.2)


def check_endings() -> None:
    """Every crew that was asked to end has done so. Raises AssertionError, naming what had to be killed."""
    while ENDINGS:
        ENDINGS.pop().join()
    hanging, HANGING[:] = list(HANGING), []
    assert not hanging, hanging[0]


def ends(process: subprocess.Popen[bytes]) -> bool:
    """Whether it ends within ten seconds; if not, where it hangs stands in its log (Celery's answer to SIGUSR1)."""
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGUSR1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        kill(process)
        return False
    return True


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9 for the process and its children: they are a session of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
