"""A branch of the shop for acceptance tests: a folder with a replica, run and asked through the command line alone."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from config.broker import EmbeddedBroker
from tests import commands
from tests.services import free_port
from tests.waiting import eventually

COMMAND = (sys.executable, "-m", "workers.cli")
OFTEN = {"BACKHAUL_SYNC__PULL_EVERY": "1s", "BACKHAUL_SYNC__PUSH_EVERY": "2s"}


def backhaul(*words: str, cwd: Path, status: int | None = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.CompletedProcess(words, *commands.run(words, folder=cwd, environment=dict(os.environ)))
    if status is not None:
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


class ServerProcess:
    """`backhaul serve` on a port of its own, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir()

    def start(self) -> None:
        log = self.folder / "serve.log"
        words = (*COMMAND, "serve", "--data", str(self.folder / "data"), "--port", str(self.port))
        with log.open("wb") as out:
            self.process = subprocess.Popen(words, stdout=out, stderr=out, cwd=self.folder)
        eventually(lambda: b"listening on" in log.read_bytes(), timeout=30, what="the server listens")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)

    def enroll(self) -> str:
        return backhaul("enroll", "--data", str(self.folder / "data"), cwd=self.folder).stdout.strip()


class Branch:
    """One replica. `write` is a program without any hook: plain sqlite3, from this process."""

    def __init__(self, home: Path, database: Path, server: ServerProcess) -> None:
        self.home = home
        self.database = database
        words = ("init", "--database", f"sqlite:///{database}", "--remote", server.url, "--code", server.enroll())
        self.told = backhaul(*words, cwd=home).stdout

    @contextmanager
    def up(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        log = self.home / "up.log"
        with log.open("wb") as out:
            command = (*COMMAND, "up", *(words or ("--no-flower",)))
            process = subprocess.Popen(command, cwd=self.home, env=os.environ | OFTEN, stdout=out, stderr=out)
        try:
            eventually(lambda: self._ready(process, log), timeout=60, what="`backhaul up` has its workers")
            yield process
        finally:
            process.terminate()
            process.wait(60)

    def _ready(self, process: subprocess.Popen[bytes], log: Path) -> bool:
        assert process.poll() is None, log.read_text()
        return len(self.workers()) >= 2

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.database, timeout=30)

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        connection = self.connect()
        try:
            return sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
        finally:
            connection.close()

    def one(self, statement: str) -> Any:
        connection = self.connect()
        try:
            return connection.execute(statement).fetchone()[0]
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(backhaul("status", "--json", cwd=self.home).stdout)
        return said

    def workers(self) -> list[dict[str, Any]]:
        connection = self.connect()
        try:
            found = connection.execute("SELECT name, pid, queues FROM backhaul_worker").fetchall()
        finally:
            connection.close()
        alive = [row for row in found if _alive(row[1])]
        return [{"name": name, "pid": pid, "queues": json.loads(queues)} for name, pid, queues in alive]

    def kill_workers(self) -> None:
        for worker in self.workers():
            os.kill(worker["pid"], signal.SIGKILL)

    def broker(self) -> redis.Redis:
        """The embedded broker, over its private socket."""
        socket = EmbeddedBroker(self.home / ".backhaul").socket
        return redis.Redis(unix_socket_path=str(socket), socket_timeout=5)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
