"""The HTTP connection under both remotes: how a request is sent, how much of an answer is read. (Where to: address.py.)

- One session, kept alive; redirects and cookies are ignored, credentials of the machine (.netrc) are never added.
- The body goes out in pieces, each with its own timeout: a slow link is no dead link.
- The answer is read as it arrives, undecoded, up to a size and a time. Only `answers.py` inflates it, bounded.
- The token travels in its header and is nowhere else: not in an error, not in a repr.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from http.cookiejar import DefaultCookiePolicy
from importlib.metadata import version
from typing import Any

import requests
from requests.exceptions import ConnectTimeout, RequestException, SSLError, Timeout
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from backhaul.errors import Misused, TimedOut, Unreachable
from backhaul.remotes import address
from backhaul.remotes.answers import BUSY, MOST_ANSWER, Answer, AnswerTooLarge, retry_after_ms
from backhaul.remotes.endpoint import Endpoint
from backhaul.wire import PROTOCOL, PROTOCOL_HEADER, REPLICA_HEADER

CONNECT_AND_READ = (5.0, 30.0)  # seconds without a sign of life
LONGEST_EXCHANGE = 60.0  # seconds to send a request and to read its answer; leases of what is sent are longer
PIECE = 16 * 2**10  # bytes given to the socket at once; each must leave within the connect timeout
READ = 64 * 2**10
HEAD_BYTES = 160  # of a request's first line, host, token and length, about
SLOW = "the link is very slow; try again on a better one"

Body = bytes | memoryview


class Connection:
    """Raises, at construction: ConfigurationInvalid (not a URL of a server), RemoteInsecure, Misused (the token)."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        allow_plain: bool = False,
        timeout: tuple[float, float] = CONNECT_AND_READ,
        endpoint: Endpoint | None = None,
    ) -> None:
        parsed = address.read(url)
        self._endpoint = endpoint
        self.origin = parsed.url
        self.guarded = address.guarded(parsed)
        self._timeout = timeout
        self._authorization: str | None = None
        self._replica: str | None = None
        if token is not None:
            self.sign_in(token)
        self._session = _session(trusting_environment=address.permitted(parsed, allow_plain))
        self._session.auth = self._authorize

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.origin!r})"

    def sign_in(self, token: str) -> None:
        """The token of every request from now on."""
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise Misused("the token holds characters that no token has", hint="register this replica again")
        self._authorization = f"Bearer {token}"

    def speak_for(self, replica: str | None) -> None:
        """For whom every request is from now on. None: for the one whose token it is."""
        self._replica = replica

    def exchange(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | list[str]] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
    ) -> Answer:
        """One request and its whole answer, whatever its status.

        Raises Unreachable when there is no whole answer, and Busy, unasked, while the server is to be left alone.
        """
        if self._endpoint is not None:
            self._endpoint.check()
        answer = self._asked(method, path, query=query, headers=headers, body=body)
        wait = retry_after_ms(answer.headers) if answer.status in BUSY else None
        if wait and self._endpoint is not None:
            self._endpoint.hold(wait, f"{self.origin} is busy (HTTP {answer.status})")
        return answer

    def _asked(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | list[str]] | None,
        headers: Mapping[str, str] | None,
        body: Body,
    ) -> Answer:
        deadline = time.monotonic() + LONGEST_EXCHANGE  # a duration of ours, not a time of the world
        pieces, arriving = _Pieces(body, deadline), _Arriving(deadline)
        try:
            with self._session.request(
                method,
                self.origin + path,
                params=query,
                headers=headers,
                data=pieces if body else None,
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
            ) as response:
                arriving.head = _size(response.headers)
                return Answer(
                    origin=self.origin,
                    status=response.status_code,
                    headers=response.headers,
                    body=arriving.read(response.raw),
                )
        except (RequestException, HTTPError) as error:
            raise self._unreachable(error) from error
        finally:
            if self._endpoint is not None:
                head = len(method) + len(path) + _size(self._session.headers) + _size(headers or {}) + HEAD_BYTES
                self._endpoint.count(pieces.sent + head, arriving.size + arriving.head)

    def close(self) -> None:
        self._session.close()
        if self._endpoint is not None:
            self._endpoint.write_count()

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._authorization is not None:
            request.headers["Authorization"] = self._authorization
        if self._replica is not None:
            request.headers[REPLICA_HEADER] = self._replica
        return request

    def _unreachable(self, error: Exception) -> Unreachable:
        if isinstance(error, SSLError):
            return Unreachable(
                f"{self.origin} cannot be trusted: {_cause(error)}",
                hint="the server needs a certificate that this machine knows; it will not be spoken to without one",
            )
        if isinstance(error, ConnectTimeout):
            return Unreachable(f"{self.origin} did not answer in time", hint="check the network, and try again")
        if isinstance(error, Timeout | ReadTimeoutError) or _stuck(error):
            return TimedOut(f"{self.origin} did not answer in time", hint="check the network, and try again")
        return Unreachable(
            f"{self.origin} cannot be reached: {_cause(error)}",
            hint="check the URL of the remote, the network, and that the server runs",
        )


class _Pieces:
    """A body of known length that is sent piece by piece, until the deadline."""

    def __init__(self, body: Body, deadline: float) -> None:
        self._body = memoryview(body)
        self._deadline = deadline
        self.sent = 0

    def __len__(self) -> int:
        return len(self._body)

    def __iter__(self) -> Iterator[Any]:  # memoryviews: they are sent as they are, never copied
        for start in range(0, len(self._body), PIECE):
            if time.monotonic() > self._deadline:
                raise TimedOut(f"the request did not leave within {LONGEST_EXCHANGE:.0f} seconds", hint=SLOW)
            piece = self._body[start : start + PIECE]
            yield piece
            self.sent += len(piece)


class _Session(requests.Session):
    def get_redirect_target(self, _response: requests.Response) -> None:
        """No redirect is looked at: even unfollowed, its body would be read and inflated without a bound."""


class _Arriving:
    """An answer. head, size: bytes of its head, and of its body as far as it has come."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self.head = self.size = 0

    def read(self, raw: Any) -> bytes:
        """The body, still coded. raw: a urllib3 response, which would inflate without limit if it were let."""
        parts = []
        while part := raw.read1(READ, decode_content=False):
            self.size += len(part)
            if self.size > MOST_ANSWER:
                raise AnswerTooLarge(f"the answer is larger than {MOST_ANSWER} bytes")
            if time.monotonic() > self._deadline:
                raise TimedOut(f"the answer did not arrive within {LONGEST_EXCHANGE:.0f} seconds", hint=SLOW)
            parts.append(part)
        return b"".join(parts)


def _size(headers: Mapping[str, Any]) -> int:
    """Bytes of these headers as they travel."""
    return sum(len(name) + len(str(value)) + 4 for name, value in headers.items())


def _session(*, trusting_environment: bool) -> requests.Session:
    session = _Session()
    session.trust_env = trusting_environment
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.clear()
    session.headers.update(
        {
            "User-Agent": f"backhaul/{version('backhaul')}",
            "Accept": "application/json, application/problem+json",
            "Accept-Encoding": "zstd, gzip",
            PROTOCOL_HEADER: PROTOCOL,
        }
    )
    return session


def _stuck(error: Exception) -> bool:
    """Whether the request itself did not leave in time: requests calls that no more than an aborted connection."""
    broken = next(iter(error.args), None)
    return isinstance(broken, ProtocolError) and any(isinstance(one, TimeoutError) for one in broken.args)


def _cause(error: BaseException) -> str:
    """The reason the operating system gave, from under the layers that wrapped it; their texts repeat the request."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        seen = seen.__cause__ or seen.__context__ or _wrapped(seen)
    return "the answer broke off" if isinstance(error, HTTPError) else "no connection"


def _wrapped(error: BaseException) -> BaseException | None:
    inner = getattr(error, "reason", None) or next(iter(error.args), None)
    return inner if isinstance(inner, BaseException) else None
