"""The command line as a person has it: real processes, a real server, folders of their own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backhaul.clock import SystemClock
from backhaul.server.settings import Settings
from tests import commands
from tests.waiting import eventually
from workers.cli.asking import ask
from workers.cli.here import opened
from workers.enrolment import make_code
from workers.joining import Wanted, join

# A person's machine, of which nothing is known but whether the server is reached and what is on the disk: whether the
# one that the tests run on is busy, on battery or on a metered link decides nothing here.
MACHINE = {
    "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent/bus",
    "BACKHAUL_PROBES__ON": '["connected", "unmetered", "metered", "not_roaming", "storage_not_low"]',
}

SHOP = """
    CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, phone TEXT);
    CREATE TABLE line (invoice TEXT, position INTEGER, what TEXT, PRIMARY KEY (invoice, position));
    CREATE TABLE log (happened TEXT);
    INSERT INTO customer VALUES (1, 'Ada', '1'), (2, 'Grace', '2');
    INSERT INTO line VALUES ('A', 1, 'pump');
"""


@pytest.fixture(scope="package", autouse=True)
def _machine() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in MACHINE.items():
            patch.setenv(name, value)
        yield


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def backhaul(*arguments: str, home: Path | None = None, env: dict[str, str] | None = None) -> Said:
    """One command, to its end; in the folder of a replica, if one is given."""
    status, out, err = commands.run(arguments, folder=home, environment={**os.environ, **(env or {})})
    assert "Traceback" not in err, err
    return Said(status, out, err)


@contextmanager
def started(*arguments: str, folder: Path, until: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs on, once it has said `until`; asked to end at the end, and killed if it does not."""
    log = folder / f"{arguments[0]}.out"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.cli", *arguments],
            cwd=folder,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        eventually(lambda: until in log.read_text() or process.poll() is not None, 60, f"{arguments[0]} says {until!r}")
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass(frozen=True)
class Server:
    url: str
    data: Path

    def code(self, scope: str) -> str:
        return make_code(Settings(data=self.data), scope)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with started("serve", "--data", str(folder / "data"), "--port", "0", folder=folder, until="listening on"):
        url = (folder / "serve.out").read_text().split("listening on ")[1].split()[0]
        yield Server(url, folder / "data")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with an app's database, and nothing of ours."""
    return make_home(tmp_path / "home")


@pytest.fixture
def replica(home: Path, server: Server) -> Path:
    """A replica of a scope of its own, synced once."""
    return joined(home, server, scope=str(home))


def make_home(folder: Path) -> Path:
    folder.mkdir()
    execute(folder, SHOP)
    return folder


def joined(home: Path, server: Server, *, scope: str) -> Path:
    """What `backhaul init` and `backhaul sync --wait` do, without starting Python for each."""
    wanted = Wanted(database="sqlite:///shop.db", remote=server.url, code=server.code(scope[-90:]), name="test")
    join(home, wanted, SystemClock())
    synced(home, "push", "pull")
    return home


def synced(home: Path, *journeys: str) -> None:
    """What `backhaul sync --wait` does, without starting Python for it."""
    with opened(home) as here:
        for name in journeys or ("pull", "push", "pull"):
            assert ask(here, name, wait_seconds=0, watch=lambda _: None).state == "done"


def execute(home: Path, script: str) -> None:
    """As another program would write: plain sqlite3."""
    with closing(sqlite3.connect(home / "shop.db")) as connection, connection:
        connection.executescript(script)


def rows(home: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(home / "shop.db")) as connection:
        return connection.execute(statement).fetchall()


def contents(folder: Path) -> dict[str, str]:
    """Every file in it, by its hash: two equal answers mean that nothing was changed."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def processes_of(folder: Path) -> dict[int, str]:
    """The processes that have to do with the folder: by their command line, their environment, or where they stand."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            environment = (process / "environ").read_bytes().decode(errors="replace")
            stands = str((process / "cwd").readlink())
        except OSError:
            continue  # it has ended, or is another user's
        if command and any(str(folder) in text for text in (command, environment, stands)):
            found[int(process.name)] = command
    return found
