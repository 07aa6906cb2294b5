"""A proxy that stands between a replica and its server and does to the answers whatever a test says.

A rule sees each request and decides: it may pass it on, or not; give the server's answer back, change it, cut it off in
the middle, or say something of its own; or close the connection without a word.

    with proxy(server.url) as between:
        between.rule = every_third_answer_lost()
        remote = HttpRemote(between.url, token)
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PROTOCOL = ("Backhaul-Protocol", "1")
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
ANSWER_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class Request:
    """number: from 1, of those that came through this proxy."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """cut_at: so many bytes of the body are sent, of as many as are announced, and the connection is closed."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    cut_at: int | None = None

    def header(self, name: str) -> str | None:
        return next((value for known, value in self.headers if known.lower() == name.lower()), None)


PassOn = Callable[[], Answer]
Rule = Callable[[Request, PassOn], Answer | None]  # None: the connection is closed without an answer


def honest(_request: Request, pass_on: PassOn) -> Answer:
    return pass_on()


class Proxy:
    """rule: may be changed at any time. target: the server's URL."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.rule: Rule = honest
        self.requests = 0
        self._counting = threading.Lock()
        self._listening = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._listening.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._listening.server_port}"
        self._thread = threading.Thread(target=self._listening.serve_forever, args=(0.05,), name="proxy")
        self._thread.start()

    def close(self) -> None:
        self._listening.shutdown()
        self._thread.join(10)
        self._listening.server_close()

    def count(self) -> int:
        with self._counting:
            self.requests += 1
            return self.requests

    def pass_on(self, request: Request) -> Answer:
        """What the server says. Raises OSError, HTTPException: there is none."""
        target = urlsplit(self.target)
        upstream = http.client.HTTPConnection(str(target.hostname), target.port, timeout=ANSWER_SECONDS)
        try:
            upstream.request(request.method, request.path, request.body or None, request.headers)
            answer = upstream.getresponse()
            kept = HOP - {"content-length"} if request.method == "HEAD" else HOP  # of what is not sent
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in kept]
            return Answer(status=answer.status, headers=headers, body=answer.read())
        finally:
            upstream.close()


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            request = Request(number=proxy.count(), method=self.command, path=self.path, headers=headers, body=body)
            try:
                answer = proxy.rule(request, lambda: proxy.pass_on(request))
            except (OSError, http.client.HTTPException):
                answer = None
            if answer is None:
                self.close_connection = True
                return
            self.send_response_only(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            if answer.status != 204 and answer.header("Content-Length") is None:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body[: answer.cut_at])
            self.close_connection = self.close_connection or answer.cut_at is not None

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _any  # noqa: N815 - their names

        def handle_expect_100(self) -> bool:
            said = super().handle_expect_100()
            self.wfile.flush()
            return said

        def handle(self) -> None:
            with suppress(OSError):  # a client that was killed is no affair of ours
                super().handle()

        def log_message(self, *_said: object) -> None:
            pass

    return Handler


@contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    made = Proxy(target)
    try:
        yield made
    finally:
        made.close()


# ------------------------------------------------------------------------------------------------ rules


def every(number: int, then: Rule) -> Rule:
    """The rule for each request with a number that this divides; the others pass."""

    def rule(request: Request, pass_on: PassOn) -> Answer | None:
        return then(request, pass_on) if request.number % number == 0 else pass_on()

    return rule


def first(times: int, then: Rule, *, path: str = "/v1/") -> Rule:
    """The rule for the first so many requests to such a path; the others pass."""
    left = times
    counting = threading.Lock()

    def rule(request: Request, pass_on: PassOn) -> Answer | None:
        nonlocal left
        with counting:
            struck = left > 0 and request.path.startswith(path)
            left -= struck
        return then(request, pass_on) if struck else pass_on()

    return rule


def lost(_request: Request, pass_on: PassOn) -> None:
    """The server has done what it was asked to, and its answer never arrives."""
    pass_on()


def unsent(_request: Request, _pass_on: PassOn) -> None:
    """The request never arrives."""


def truncated(_request: Request, pass_on: PassOn) -> Answer:
    """The half of the answer, and then the connection is closed."""
    answer = pass_on()
    return replace(answer, cut_at=len(answer.body) // 2)


def halved(_request: Request, pass_on: PassOn) -> Answer:
    """The half of the answer, announced as if it were the whole: half a frame, when it is compressed."""
    answer = pass_on()
    return replace(answer, body=answer.body[: len(answer.body) // 2])


def says(status: int, *headers: tuple[str, str], body: bytes = b"", media_type: str = "text/html") -> Rule:
    """An answer that the server was not asked for."""
    said = Answer(status=status, headers=[("Content-Type", media_type), *headers], body=body)
    return lambda _request, _pass_on: said
