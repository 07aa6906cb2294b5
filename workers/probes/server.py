"""Whether the sync server is reached: the last word on `connected`, for a network may be there and lead nowhere.

Reaching is a TCP connection, opened and closed, to the server or to the proxy before it: a few hundred bytes. While all
is well it is tried every now and then (15 s, unless set otherwise), and every 5 s once it has failed. Two failures in a
row are a "no"; one success is a "yes". When the network is gone, that is a "no" at once; when it is there again, the
server is tried at once, and until it is reached the answer stays "no". A server that was reached after NetworkManager
said that there is no network is reached all the same: a machine may have links that NetworkManager does not manage.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Protocol

from backhaul.clock import Clock
from backhaul.errors import BackhaulError
from backhaul.remotes.address import FirstHop, first_hop
from backhaul.work.reading import STALE_MS, Answer
from workers.probes.aside import Aside
from workers.probes.probe import Said

MISSED_MS = 5_000
CONNECT_SECONDS = 4.0  # two round trips by satellite, and a packet lost
MISSES = 2


Resolve = Callable[[str, int], list[tuple[int, Any]]]


def _resolved(host: str, port: int) -> list[tuple[int, Any]]:
    """The families and addresses of a name."""
    return [(found[0], found[4]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class Link(Protocol):
    """The network on this side of the server, as network.py knows it."""

    def link(self, now: int) -> Said: ...

    def captive(self) -> bool:
        """Whether something stands between, which takes every connection as if it were the server."""

    def settled(self) -> bool: ...


class Server:
    """remote: the server's URL, or "". every_ms: between two looks."""

    names = ("connected",)

    def __init__(
        self,
        remote: str,
        *,
        allow_plain: bool,
        every_ms: int,
        link: Link,
        clock: Clock,
        heard: Callable[[], None],
        resolve: Resolve = _resolved,
        patience: float = CONNECT_SECONDS + 0.5,
    ) -> None:
        self._remote = remote
        self._allow_plain = allow_plain
        self._resolve = resolve
        self._every_ms = every_ms
        self._link = link
        self._aside: Aside[float] = Aside(
            self._reach, clock=clock, done=heard, name="server", patience=patience, by_socket=True
        )
        self._hop = _hop(remote, allow_plain)
        self._near = self._hop is not None and self._hop.loopback
        self._answer: Answer = "unknown"
        self._detail = "the server was not tried yet"
        self._read_at = 0
        self._misses = 0
        self._looks = 0
        self._looked_at = 0
        self._linked: Answer = "unknown"

    def look(self, now: int) -> None:
        if self._hop is None:
            return
        self._follow(now)
        if self._link.captive() and not self._near:
            return
        every = self._every_ms if self._answer != "no" and not self._misses else MISSED_MS
        if abs(now - self._looked_at) < every:
            return
        if self._aside.overdue:
            self._miss("its name is not found in time")
            self._looked_at = self._read_at = now
        elif self._aside.begin(now):
            self._looked_at = now

    def settled(self) -> bool:
        tried = self._hop is None or self._aside.settled or self._answer == "no"
        return tried and (self._near or self._link.settled())

    def said(self, now: int) -> list[Said]:
        link = self._link.link(now)
        if self._hop is None:
            return [link if link.source == "NetworkManager" else _nothing(now, self._remote)]
        self._follow(now)
        if self._answer == "no" and link.answer == "no" and not self._near:
            return [link]
        return [
            Said(
                name="connected",
                answer=self._answer,
                read_at=self._read_at or now,  # nothing was looked at yet, and that is known now
                source="server",
                detail=self._detail,
                good_for=max(STALE_MS, 2 * self._every_ms),
            )
        ]

    def _follow(self, now: int) -> None:
        """What has come of the looks and of the network since the last time."""
        linked = self._link.link(now).answer
        if not self._near and linked != self._linked:
            before, self._linked = self._linked, linked
            if linked == "no":
                self._answer, self._misses = "no", MISSES - 1
                self._looks = self._aside.looks + self._aside.running  # what is under way may have been before that
                self._looked_at = self._read_at = now
            elif before == "no":
                self._looked_at = 0
                if self._answer == "no":
                    self._detail = "there is a network again; the server is tried"
        if self._aside.looks > self._looks:
            self._looks, self._read_at = self._aside.looks, self._aside.read_at
            took = self._aside.found
            if took is None:
                self._miss("it cannot be reached")
            else:
                self._answer, self._misses, self._detail = "yes", 0, f"reached within {1000 * took:.0f} ms"

    def _miss(self, why: str) -> None:
        self._misses += 1
        if self._misses >= MISSES:
            self._answer = "no"
        self._detail = f"{why}, tried {self._misses} times" if self._misses > 1 else why

    def _reach(self) -> float | None:
        """How long it took, in seconds. None: not reached. Each of its addresses gets its part of the time."""
        begun = time.monotonic()
        hop = first_hop(self._remote, allow_plain=self._allow_plain)
        addresses = self._resolve(hop.host, hop.port)
        for tried, (family, address) in enumerate(addresses):
            left = begun + CONNECT_SECONDS - time.monotonic()
            if left <= 0:
                return None
            with closing(socket.socket(family, socket.SOCK_STREAM)) as connection:
                connection.settimeout(left / (len(addresses) - tried))
                if connection.connect_ex(address) == 0:
                    return time.monotonic() - begun
        return None


def _hop(remote: str, allow_plain: bool) -> FirstHop | None:
    if not remote:
        return None
    try:
        return first_hop(remote, allow_plain=allow_plain)
    except BackhaulError:
        return None  # whoever wants to speak to it will say what is wrong with it


def _nothing(now: int, remote: str) -> Said:
    detail = "the remote is no server's URL" if remote else "no remote is set"
    return Said(name="connected", answer="unknown", read_at=now, source="none", detail=detail)
