"""Large bodies past the parser: what lies between a request's head and the end of its body has nothing to parse.

h11 takes each piece into its own buffer, out of it again, and through its states, and each piece wakes who waits for
it; of a film that is most of what the server does. So the kernel writes the rest of a large body straight into blocks
of ours, of a megabyte each, and h11 is told how many bytes there were. The head, what came along with it, and the end
it sees itself. Where h11 or uvicorn keep these things elsewhere one day, every piece goes through the parser, as ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

try:
    from h11._readers import ContentLengthReader as _Reader
except ImportError:
    _Reader: Any = None  # type: ignore[no-redef]

BLOCK = 2**20  # bytes, gathered before they are written
LEAST = 2**18  # bytes to come: for fewer it is not worth while
RING = 3  # blocks of a body: one that is written, one that waits for that, one that fills
MOST_SPARE = 4 * RING  # blocks, kept for the bodies to come
EXTENSION = "backhaul.body"  # of a request's scope: what gives the rest of its body

Straighten = Callable[["Ring", bytes], "Straight | None"]

_spare: list[bytearray] = []


class Protocol(H11Protocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        parsed = self.app

        async def offered(scope: Any, receive: Any, send: Any) -> None:
            scope.setdefault("extensions", {})[EXTENSION] = self.straighten
            await parsed(scope, receive, send)

        self.app = offered

    def straighten(self, ring: Ring, begun: bytes) -> Straight | None:
        """The body that is coming. ring: room for its blocks. begun: what was read of it already. None: it is small, or
        its length is not known."""
        reader, cycle = getattr(self.conn, "_reader", None), self.cycle
        if (
            _Reader is None
            or not isinstance(reader, _Reader)
            or getattr(reader, "_remaining", 0) < LEAST
            or len(begun) >= BLOCK
            or cycle.body
            or cycle.disconnected
            or cycle.response_complete
            or self.transport.is_closing()  # over TLS the word of that is on its way to who was spoken to until now
            or self.conn.trailing_data[0]
        ):
            return None
        straight = Straight(self, reader, ring, begun)
        self.transport.set_protocol(straight)
        self.flow.resume_reading()
        return straight


class Straight(asyncio.BufferedProtocol):
    """What a connection speaks to while the rest of a body comes."""

    def __init__(self, protocol: Protocol, reader: Any, ring: Ring, begun: bytes) -> None:
        self._protocol = protocol
        self._reader = reader
        self._ring = ring
        self._full = deque[memoryview]()
        self._given = deque[bytearray]()
        self._filling: bytearray | None = ring.take()
        self._filling[: len(begun)] = begun
        self._at = len(begun)
        self._ended = False
        self._came = asyncio.Event()
        self.received = 0

    async def block(self) -> memoryview:
        """The next one; an empty one when the rest is the parser's, and the stream's, again. Its bytes stay as they are
        until the next but one is asked for."""
        if len(self._given) == RING - 1:
            self._ring.give_back(self._given.popleft())
            if not self._ended:
                self._protocol.flow.resume_reading()
        while not self._full and not self._ended:
            self._came.clear()
            await self._came.wait()
        return self._next() if self._full else self.leave()

    def leave(self) -> memoryview:
        """What has come of the block that was filling. Nothing more will come this way."""
        if not self._ended:
            self._end()
        self._push()
        return self._next() if self._full else memoryview(b"")

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's
        if self._filling is None:
            self._filling = self._ring.take()
        return memoryview(self._filling)[self._at : self._at + self._reader._remaining]

    def buffer_updated(self, nbytes: int) -> None:
        self._at += nbytes
        self.received += nbytes
        self._reader._remaining -= nbytes
        whole = not self._reader._remaining
        if whole or self._at == BLOCK:
            self._push()
            self._came.set()
        if whole:
            self._end()
            self._protocol.handle_events()
        elif self._filling is None and self._ring.is_full:
            self._protocol.flow.pause_reading()

    def eof_received(self) -> None:
        self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._came.set()
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def _push(self) -> None:
        if self._filling is not None:
            self._full.append(memoryview(self._filling)[: self._at])
            self._filling, self._at = None, 0

    def _next(self) -> memoryview:
        found = self._full.popleft()
        self._given.append(cast(bytearray, found.obj))
        return found

    def _end(self) -> None:
        self._ended = True
        self._protocol.transport.set_protocol(self._protocol)


class Ring:
    """The blocks of one body, made as they are needed."""

    def __init__(self) -> None:
        self.made: list[bytearray] = []
        self._free: list[bytearray] = []

    @property
    def is_full(self) -> bool:
        return not self._free and len(self.made) == RING

    def take(self) -> bytearray:
        if self._free:
            return self._free.pop()
        self.made.append(_block())
        return self.made[-1]

    def give_back(self, block: bytearray) -> None:
        self._free.append(block)


@contextmanager
def ring() -> Iterator[Ring]:
    """Its blocks are used again, unless this ends with an error: then somebody may be reading them yet."""
    blocks = Ring()
    yield blocks
    _spare.extend(blocks.made[: MOST_SPARE - len(_spare)])


def _block() -> bytearray:
    try:
        return _spare.pop()
    except IndexError:
        return bytearray(BLOCK)
