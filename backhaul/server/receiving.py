"""Bytes on their way in: one writer per upload, blocks of bounded size, and connections that die half way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
from starlette.requests import ClientDisconnect, Request

from backhaul.server.bodies import BLOCK, EXTENSION, Ring, Straight, Straighten, ring

QUIET_SECONDS = 60  # without a byte, or a block


class Cut(Exception):
    """The rest of the body will not come: the connection died or fell silent, or a newer request took over."""


class Turns:
    """One request at a time for an upload. The newest wins: an older one may hang on a connection that is dead."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}

    def busy(self, upload: str) -> bool:
        return upload in self._turns

    @asynccontextmanager
    async def take(self, upload: str) -> AsyncIterator[asyncio.Event]:
        """Yields the event that is set when a newer request wants the upload."""
        turn = self._turns.setdefault(upload, _Turn())
        turn.requests += 1
        turn.newest += 1
        mine = turn.newest
        turn.give_way.set()
        try:
            async with turn.lock:
                turn.give_way = asyncio.Event()
                if turn.newest != mine:
                    turn.give_way.set()
                yield turn.give_way
        finally:
            turn.requests -= 1
            if not turn.requests:
                del self._turns[upload]


class _Turn:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.give_way = asyncio.Event()
        self.requests = 0
        self.newest = 0


@contextmanager
def body(request: Request, give_way: asyncio.Event) -> Iterator[AsyncIterator[bytes | memoryview]]:
    """The body in blocks, of which each stays as it is until the next but one is asked for; to be left when nobody
    needs the last ones any more. The blocks raise Cut after the last one that came."""
    with ring() as room:
        pieces = _Pieces(request, give_way, room)
        try:
            yield _blocks(pieces)
        finally:
            pieces.close()


async def _blocks(pieces: _Pieces) -> AsyncIterator[bytes | memoryview]:
    gathered, size, whole = list[bytes | memoryview](), 0, False
    while (piece := await pieces.next()) is not None:
        whole = not piece
        if whole:
            break
        gathered.append(piece)
        size += len(piece)
        if size >= BLOCK:
            yield gathered[0] if len(gathered) == 1 else b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)
    if not whole:
        raise Cut


class _Pieces:
    """Of one body. There are thousands of them, so that each waits in its request's own task, and one other task, for
    the whole body, calls it away when it shall give way."""

    def __init__(self, request: Request, give_way: asyncio.Event, room: Ring) -> None:
        self._stream = request.stream()
        self._straighten: Straighten | None = request.scope.get("extensions", {}).get(EXTENSION)
        self._straight: Straight | None = None
        self._room = room
        self._silent = False
        self._give_way = give_way
        self._waiting: anyio.CancelScope | None = None
        self._calling = asyncio.create_task(self._call_away())

    async def next(self) -> bytes | memoryview | None:
        """The next bytes; b"" at the end of the body; None when no more will come."""
        received = self._received
        while not self._silent and not self._give_way.is_set():
            with anyio.move_on_after(QUIET_SECONDS) as self._waiting:
                return await self._following()
            received, before = self._received, received
            self._silent = received == before
        return self._leave()

    def close(self) -> None:
        self._calling.cancel()
        self._leave()

    @property
    def _received(self) -> int:
        return self._straight.received if self._straight is not None else 0

    def _leave(self) -> memoryview | None:
        """What has come of a block that will not be full."""
        return (self._straight.leave() or None) if self._straight is not None else None

    async def _call_away(self) -> None:
        await self._give_way.wait()
        if self._waiting is not None:
            self._waiting.cancel()

    async def _following(self) -> bytes | memoryview | None:
        if self._straight is not None and (block := await self._straight.block()):
            return block
        try:
            async for piece in self._stream:
                if piece and self._straight is None and self._straighten is not None:
                    self._straight = self._straighten(self._room, piece)
                    if self._straight is not None:
                        return await self._straight.block()
                if piece:
                    return piece
        except ClientDisconnect:
            return None
        return b""
