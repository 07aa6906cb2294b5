"""A line to a server that is struck when so many bytes have gone through it, and a worker's run as a process.

It counts what of the bodies of uploads goes through, whatever becomes of it on the other side.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.errors import Refused, TryLater
from backhaul.media.transfer import upload
from backhaul.remotes.tus import TusRemote

READ = 16_384
LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
TIMEOUT = (2.0, 10.0)


class CuttingLine:
    """marks: ascending; at each so many bytes that came from the client, `strike` is called with its number, and the
    connection is cut. lose_answer: the strikes after which the server gets its bytes, and the client no answer."""

    def __init__(self, port: int, marks: list[int], strike: Callable[[int], None], lose_answer: set[int]) -> None:
        self._port = port
        self._marks = marks
        self._strike = strike
        self._lose_answer = lose_answer
        self._counting = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.struck = 0
        self.bytes = 0  # all that came from the client
        self.body = 0  # of which are in bodies of PATCH
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="line")]
        self._threads[0].start()

    def close(self) -> None:
        for one in [self._listening, *self._open]:
            _end(one)
        for thread in self._threads:
            thread.join(60)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._port), timeout=20)
                except OSError:
                    _end(client)
                    continue
                server.settimeout(None)
                self._open += [client, server]
                silent = threading.Event()
                for pipe in (self._there, self._back):
                    self._threads.append(threading.Thread(target=pipe, args=(client, server, silent), name="line"))
                    self._threads[-1].start()

    def _there(self, client: socket.socket, server: socket.socket, silent: threading.Event) -> None:
        requests = _Requests()
        with suppress(OSError):
            while data := client.recv(READ):
                struck = self._count(len(data), requests.body_of(data))
                if struck is None:
                    server.sendall(data)
                elif struck in self._lose_answer:
                    silent.set()
                    server.sendall(data)
                else:
                    server.sendall(data[: len(data) // 2])
                    self._strike(struck)
                    break
        if not silent.is_set():
            _end(client)
            _end(server)

    def _back(self, client: socket.socket, server: socket.socket, silent: threading.Event) -> None:
        with suppress(OSError):
            while (data := server.recv(READ)) and not silent.is_set():
                client.sendall(data)
        _end(client)
        _end(server)

    def _count(self, size: int, body: int) -> int | None:
        """The number of the strike that is due, if one is."""
        with self._counting:
            self.bytes += size
            self.body += body
            if self.struck == len(self._marks) or self.bytes < self._marks[self.struck]:
                return None
            while self.struck < len(self._marks) and self._marks[self.struck] <= self.bytes:
                self.struck += 1
            return self.struck - 1


class _Requests:
    """What goes through one connection, request after request."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._counts = False

    def body_of(self, data: bytes) -> int:
        """How many of these bytes are in bodies of PATCH."""
        found = 0
        while data:
            if self._left:
                taken = min(self._left, len(data))
                found += taken if self._counts else 0
                self._left -= taken
                data = data[taken:]
                continue
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                break
            length = LENGTH.search(head)
            self._left, self._counts, self._head = int(length[1]) if length else 0, head.startswith(b"PATCH"), b""
        return found


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def cutting(port: int, marks: list[int], strike: Callable[[int], None], lose_answer: set[int]) -> Iterator[CuttingLine]:
    with closing(CuttingLine(port, marks, strike, lose_answer)) as line:
        yield line


class _Undisturbed:
    def check(self) -> None:
        """Never stopped."""

    def progress(self, progress: dict[str, Any], /) -> None:
        """Nobody asks."""


def send_on(database_url: str, url: str, token: str, upload_id: str, chunk: int) -> None:
    """One run of a worker."""
    with (
        closing(open_database(database_url)) as database,
        closing(TusRemote(url, token, timeout=TIMEOUT)) as remote,
        suppress(TryLater, Refused),
    ):
        upload(database, remote, upload_id, clock=SystemClock(), context=_Undisturbed(), chunk_bytes=chunk)
