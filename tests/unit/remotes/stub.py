"""A server on loopback that answers whatever it is told to, byte by byte, and remembers what it was asked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser

TLS_GREETING = b"\x16"
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@dataclass(frozen=True, kw_only=True)
class Request:
    method: str
    path: str
    headers: Message
    body: bytes


def reply(
    status: int = 200,
    body: bytes = b"",
    *,
    content_type: str = "application/json",
    protocol: str | None = "1",
    length: int | None = None,
    headers: dict[str, str] | None = None,
    **more: str,
) -> bytes:
    """The bytes of an answer. length: a Content-Length that lies."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"Content-Type: {content_type}", "Connection: close"]
    named = {name.replace("_", "-"): value for name, value in more.items()} | (headers or {})
    lines += [f"{name}: {value}" for name, value in named.items()]
    if protocol is not None:
        lines.append(f"Backhaul-Protocol: {protocol}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class StubServer:
    """Each connection serves one request with the next of the replies; the last reply is repeated."""

    def __init__(self, *replies: bytes) -> None:
        self.requests: list[Request] = []
        self._replies = list(replies)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        if connection.recv(1, socket.MSG_PEEK) == TLS_GREETING:
            connection.sendall(b"HTTP/1.1 400 This is no TLS server\r\n\r\n")
            return
        with connection.makefile("rb") as stream:
            first = stream.readline().decode("latin-1").split()
            head = b""
            while (line := stream.readline()) not in (b"\r\n", b""):
                head += line
            headers = BytesParser().parsebytes(head)
            body = stream.read(int(headers.get("Content-Length", 0)))
        self.requests.append(Request(method=first[0], path=first[1], headers=headers, body=body))
        connection.sendall(self._replies.pop(0) if len(self._replies) > 1 else self._replies[0])


@contextmanager
def stub(*replies: bytes) -> Iterator[StubServer]:
    server = StubServer(*replies)
    try:
        yield server
    finally:
        server.close()
