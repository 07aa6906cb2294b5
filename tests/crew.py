"""A replica's folder with real workers and beats in it, as processes, for tests.

Its machine is not probed: how it is, the tests say. The folder has host functions (`note`, `fail`, `later`, ...) that
write what they did into the file `notes`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from backhaul.bell import Ring
from backhaul.clock import SystemClock
from backhaul.database import Database, open_database
from backhaul.migrations import upgrade_replica
from backhaul.work import conditions, ledger, roster
from backhaul.work.ledger import Work
from backhaul.work.placing import place
from backhaul.work.request import WorkRequest
from config.bell import publish
from config.broker import EmbeddedBroker
from config.celery import make_app
from config.loading import load
from config.queues import declared
from config.settings import Settings
from tests import commands
from tests.waiting import eventually

CONFIGURATION = """
[replica]
database = "sqlite:///shop.db"
remote = "http://127.0.0.1:1"
[probes]
on = []
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
import faulthandler
import os
import pathlib
import signal
import sys
import time
from datetime import timedelta

from celery import shared_task

from backhaul.errors import TryLater
from backhaul.work import Result, on_exception, worker

NOTES = pathlib.Path(__file__).with_name("notes")
faulthandler.register(signal.SIGRTMIN + 1, file=sys.__stderr__)  # where a process hangs, its children too

def write(word, context=None):
    with NOTES.open("a") as file:
        file.write(word + " " + (context.work.worker if context else "") + "\\n")

@worker("note", formerly=["jot"])
def note(context):
    write(context.input["word"], context)

@worker("later")
def later(context):
    raise TryLater("the printer is out of paper", retry_after_ms=60_000)

@worker("again")
def again(context):
    return Result.retry(after=timedelta(seconds=60), reason="the till is not closed")

@worker("fail")
def fail(context):
    raise ValueError("a bug\\n[parameters: a secret]")

@worker("child")
def child(context):
    if not NOTES.exists():
        write("killed", context)
        os.kill(os.getpid(), signal.SIGKILL)
    note(context)

@worker("deadly")
def deadly(context):
    write("begun", context)
    os.kill(os.getpid(), signal.SIGKILL)

def passing(context):
    released = NOTES.with_name(f"released-{context.id}")
    for _ in range(int(context.input["seconds"] * 10)):
        if released.exists() and (context.stopped or not released.read_text()):
            return
        time.sleep(0.1)
        yield

@worker("slow")
def slow(context):
    write("begun", context)
    for _ in passing(context):
        context.check()
    write("ended", context)

@worker("counting")
def counting(context):
    begin = (context.checkpointed or {"at": 0})["at"]
    write(f"from {begin}", context)
    for at in range(begin, context.input["to"]):
        context.checkpoint({"at": at + 1})
        if context.wait(0.1):
            write(f"stopped {time.time()}", context)
            return None
    return {"at": context.input["to"]}

@worker("waiting")
def waiting(context):
    write("begun", context)
    context.wait(60)
    write(f"{context.stop_reason} {time.time()}")
    return {"a result": "too late"}

@worker("deaf")
def deaf(context):
    write("begun", context)
    for _ in passing(context):
        pass
    write("ended", context)

@shared_task(name="shop.send", bind=True)
def send(self, word, times=1):
    write(f"{word} {times} {self.request.retries} {self.request.id}")
    return [word] * times

@shared_task(name="shop.stubborn", bind=True, max_retries=1)
def stubborn(self, word):
    write(f"{word} {self.request.retries}")
    if self.request.retries == 0:
        raise self.retry(countdown=1, exc=OSError("the till is busy"))
    return {"word": word}

@shared_task(name="shop.flaky", autoretry_for=(OSError,), retry_kwargs={"max_retries": 2, "countdown": 1})
def flaky():
    write("flaky")
    raise OSError("no paper")

@on_exception
def tell(work, error):
    write(f"told of {work.label}: {type(error).__name__}")
"""

ENDS_SECONDS = 60  # a hang lasts for ever, and a crowded machine is slow
Running = commands.Process | subprocess.Popen[bytes]
ENDINGS: list[threading.Thread] = []
HANGING: list[str] = []


def folder(name: str) -> Path:
    """Not in the test's own, which goes with the test: a crew ends beside the next ones, and takes its folder along."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-"))


class Crew:
    """home: the replica's folder. own_pythons: nothing is forked from a process that has imported it all. Everything
    that is started is ended by `end`."""

    def __init__(
        self,
        home: Path,
        *,
        broker: str | None = None,
        configuration: str = CONFIGURATION,
        functions: str = FUNCTIONS,
        own_pythons: bool = False,
    ) -> None:
        if not home.exists():
            home = folder(home.name)
        (home / "backhaul.toml").write_text(configuration + (f'[broker]\nurl = "{broker}"\n' if broker else ""))
        (home / "crew_functions.py").write_text(functions)
        self.home = home
        self._own_pythons = own_pythons
        self.settings: Settings = load(home)
        self.database: Database = open_database(self.settings.database_url)
        upgrade_replica(self.database)
        self.broker = EmbeddedBroker(self.settings.state)
        self.app: Celery = make_app(self.settings, current=False)
        self._processes: list[Running] = []
        self._names: list[str] = []

    # what runs

    def worker(
        self,
        name: str = "one",
        *options: str,
        queues: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Running:
        """A worker, ready. environment: of its own, beside what all have."""
        process = self.start_worker(name, *options, *(["-Q", queues] if queues else []), environment=environment)
        eventually(lambda: f"{name}@crew ready" in self.log(f"worker-{name}"), 30, f"worker {name} is ready", pause=0.1)
        return process

    def start_worker(self, name: str, *options: str, environment: Mapping[str, str] | None = None) -> Running:
        arguments = ["worker", "-n", f"{name}@crew", "-c", "1", "-l", "info", "--without-mingle", *options]
        return self._start(f"worker-{name}", *arguments, of_its_own=environment)

    def beat(self, name: str = "one") -> Running:
        return self._start(f"beat-{name}", "beat", "-l", "info")

    def _start(self, name: str, *arguments: str, of_its_own: Mapping[str, str] | None = None) -> Running:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("BACKHAUL_")}
        environment |= {"BACKHAUL_HOME": str(self.home), "C_FORCE_ROOT": "1"}
        environment |= of_its_own or {}
        with (self.home / f"{name}.log").open("ab") as log:
            words = ["-A", "workers.app", *arguments]
            if self._own_pythons or "gevent" in words:  # which changes Python's modules before anything is imported
                process: Running = subprocess.Popen(
                    [sys.executable, "-m", commands.CELERY, *words],
                    env=environment | {"PYTHONUNBUFFERED": "1"},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            else:
                process = commands.Process(commands.CELERY, words, environment=environment, out=log, err=log)
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
        shutil.rmtree(self.home, ignore_errors=True)

    # what is done

    def enqueue(self, function: str = "note", *, requires: str = "connected", **given: Any) -> Work:
        """In the database only: nobody rings."""
        return self.ask(WorkRequest(task=function, requires=frozenset(requires.split()), input=given or {"word": "x"}))

    def plain(self, task: str, *args: Any, **kwargs: Any) -> Work:
        """A plain Celery task as work."""
        given = {"args": list(args), "kwargs": kwargs}
        return self.ask(WorkRequest(task="backhaul.task", function=task, input=given))

    def ask(self, request: WorkRequest) -> Work:
        queue = place(declared(self.settings), request.requires, request.kind)
        with self.database.writing() as connection:
            return ledger.enqueue(connection, request, queue=queue.name, now=SystemClock().now())

    def ring(self, ring: Ring) -> None:
        publish(self.app, [ring])

    def release(self, work: Work, *, when_stopped: bool = False) -> None:
        """Its time has passed: for the functions that take some. when_stopped: once it was asked to stop."""
        partial = self.home / f"releasing-{work.id}"
        partial.write_text("when it is stopped" if when_stopped else "")
        partial.rename(self.home / f"released-{work.id}")

    def cancel(self, work: Work) -> None:
        with self.database.writing() as connection:
            ledger.cancel_by_id(connection, work.id, now=SystemClock().now(), by="the test")

    def flush(self) -> None:
        """Everything that the broker holds is gone; a broker that is not there holds nothing."""
        with contextlib.suppress(OperationalError, ConnectionError, OSError):
            self.app.connection_for_write().default_channel.client.flushall()

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

    def looked(self) -> bool:
        """Whether Beat has seen how the files are that work waits for."""
        with self.database.reading() as connection:
            return "" not in {seen for files in ledger.watched(connection).files.values() for seen in files}

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
        eventually(lambda: self._hears(seen), 10, "the events come", pause=0.1)
        try:
            yield seen
        finally:
            ended.set()
            thread.join(10)

    def _hears(self, seen: list[Mapping[str, Any]]) -> bool:
        """A subscription is only made when it is first waited for, and what was said before that is not heard."""
        with self.app.events.default_dispatcher() as dispatcher:
            dispatcher.send("crew-asks")
        return any(event["type"] == "crew-asks" for event in list(seen))

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


def ends(process: Running) -> bool:
    """Whether it ends; if not, where it and its children hang stands in its log (Celery's answer to SIGUSR1)."""
    try:
        process.wait(ENDS_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGRTMIN + 1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
        kill(process)
        return False
    return True


def kill(process: Running) -> None:
    """kill -9 for the process and its children: they are a session of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
