"""The stage of the demo: a folder, a server, two replicas, and the processes of each; all gone when it is struck."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from backhaul.errors import BackhaulError
from workers.demo.shop import Shop, make_database
from workers.ports import free_port, listens
from workers.supervisor import Child, Supervisor

Found = TypeVar("Found")

READY_SECONDS = 60.0
SETTINGS = """\
[probes]
on = []  # the demo says itself how the machine is

[sync]
push_every = "10s"
pull_every = "1s"

[retry.push]
initial = "500ms"
most = "2s"

[retry.pull]
initial = "500ms"
most = "2s"

[media]
chunk = "256KiB"
"""


class DemoFailed(BackhaulError):
    """The demo did not go as it should."""

    code = "demo-failed"


class Player:
    """A replica of the play: its folder, its app, and its `backhaul up`."""

    def __init__(self, name: str, home: Path) -> None:
        self.name = name
        self.home = home
        self.file = home / "field.db"
        self.running: dict[str, Any] = {}
        self.shop: Shop | None = None

    @property
    def app(self) -> Shop:
        assert self.shop is not None
        return self.shop

    def backhaul(self, *arguments: str) -> str:
        return command(*arguments, "--home", str(self.home))

    def backhaul_json(self, *arguments: str) -> Any:
        return json.loads(self.backhaul(*arguments, "--json"))


class Stage:
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="backhaul-demo-"))
        self.data = self.folder / "server"
        self.laptop = Player("laptop", self.folder / "laptop")
        self.office = Player("office", self.folder / "office")
        self.url = f"http://127.0.0.1:{free_port(0)}"
        self._died: list[str] = []
        self._supervisor = Supervisor(lambda child, status: self._died.append(f"{child.name} ended with {status}"))

    def start_server(self) -> None:
        port = self.url.rpartition(":")[2]
        self._start("server", ["serve", "--data", str(self.data), "--port", port])
        until(lambda: listens(int(port)), 20, "the server listens")

    def make_replica(self, player: Player, *, customers: bool) -> None:
        player.home.mkdir()
        make_database(player.file, customers=customers)
        (player.home / "backhaul.toml").write_text(SETTINGS, "utf-8")
        code = command("enroll", "--data", str(self.data)).strip()
        player.backhaul("init", "--database", "sqlite:///field.db", "--remote", self.url, "--code", code)
        player.shop = Shop(player.file)

    def start_replicas(self) -> None:
        """Side by side: most of a start is waiting for Python's imports."""
        self._start("laptop", ["up", "--json", "--home", str(self.laptop.home)])
        self._start("office", ["up", "--json", "--no-flower", "--concurrency", "1", "--home", str(self.office.home)])
        for player in (self.laptop, self.office):
            ready = partial(self._said_ready, player.name)
            player.running = until(ready, READY_SECONDS, f"{player.name} is up")

    def strike(self, *, keep: bool) -> None:
        """End every process, and remove the folder."""
        for player in (self.laptop, self.office):
            if player.shop is not None:
                player.shop.close()
        self._supervisor.stop([child for child in self._supervisor.children if child.name != "server"])
        self._supervisor.stop()
        self._supervisor.close()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, name: str, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-m", "workers.cli", *arguments]
        self._supervisor.start(Child(name=name, command=command, folder=self.folder, log=self.folder / f"{name}.log"))

    def _said_ready(self, name: str) -> dict[str, Any] | None:
        child = next(child for child in self._supervisor.children if child.name == name)
        said = child.log.read_text("utf-8")
        if child.process is not None and child.process.poll() is not None:
            raise DemoFailed(f"backhaul up of the {name} ended: {said.strip()[-500:]}")
        try:
            running: dict[str, Any] = json.loads(said)
        except ValueError:
            return None
        return running


def command(*arguments: str) -> str:
    """What the command line says. Raises DemoFailed when it says no."""
    done = subprocess.run(
        [sys.executable, "-m", "workers.cli", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DemoFailed(f"backhaul {' '.join(arguments)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def until(check: Callable[[], Found | None], seconds: float, what: str, pause: float = 0.05) -> Found:
    """The first true answer. Raises DemoFailed."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        if time.monotonic() > deadline:
            raise DemoFailed(f"not within {seconds:g} s: {what}")
        time.sleep(pause)
    return found


def ask_broker(path: str, words: str) -> str:
    """One command to the embedded redis-server, as any client could send it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(path)
        connection.sendall(f"{words}\r\n".encode())
        return connection.recv(65_536).decode()
