"""A field for benchmarks: a server process and a replica with its workers, all real, in a folder that goes away."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from bench.records import TABLE

Way = Callable[[str], AbstractContextManager[str]]
COMMAND = (sys.executable, "-m", "workers.cli")


@dataclass(frozen=True)
class Field:
    """home: the replica's folder. url: the server's."""

    home: Path
    url: str

    def backhaul(self, *words: str) -> str:
        done = subprocess.run((*COMMAND, *words), cwd=self.home, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.home / "app.sqlite", timeout=30)

    @contextmanager
    def up(self) -> Iterator[subprocess.Popen[bytes]]:
        """Broker, workers and beat, until the end of the block."""
        with self._process("up", "--no-flower") as process:
            until(lambda: self.one("SELECT count(*) FROM backhaul_worker") >= 2, 60, "the workers are there")
            yield process

    def one(self, statement: str) -> int:
        connection = self.connect()
        try:
            return int(connection.execute(statement).fetchone()[0] or 0)
        finally:
            connection.close()

    @contextmanager
    def _process(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        log = (self.home / f"{words[0]}.log").open("wb")
        process = subprocess.Popen((*COMMAND, *words), cwd=self.home, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            log.close()


@contextmanager
def field(*, conditions: str = "", through: Way = nullcontext) -> Iterator[Field]:
    """A fresh server, and a replica of it with one table of `records.TABLE`, empty. Nothing of the replica runs yet.

    through: a line, made of the server's URL, by whose own the replica knows the server.
    """
    with tempfile.TemporaryDirectory(prefix="backhaul-bench-") as name:
        folder = Path(name)
        with (folder / "serve.log").open("wb") as log:
            words = (*COMMAND, "serve", "--data", str(folder / "server"), "--port", "0")
            server = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, env={**os.environ})
            try:
                with through(_listening(folder)) as url:
                    yield _join(folder, url, conditions)
            finally:
                server.terminate()
                server.wait(30)


def _listening(folder: Path) -> str:
    log = folder / "serve.log"
    until(lambda: "listening on " in log.read_text(), 30, "the server listens")
    return log.read_text().split("listening on ")[1].split()[0]


def _join(folder: Path, url: str, conditions: str) -> Field:
    home = folder / "home"
    home.mkdir()
    app = sqlite3.connect(home / "app.sqlite")
    app.execute(TABLE)
    app.close()
    made = Field(home, url)
    code = made.backhaul("enroll", "--data", str(folder / "server"))
    made.backhaul("init", "--database", "sqlite:///app.sqlite", "--remote", url, "--code", code)
    with (home / "backhaul.toml").open("a") as settings:
        settings.write(conditions)
    return made


def until(check: Callable[[], bool], seconds: float, what: str, *, pause: float = 0.005) -> None:
    """Poll for a condition; raises TimeoutError that names it. pause: long where asking costs what is measured."""
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds} s it is not so that {what}")
        time.sleep(pause)
