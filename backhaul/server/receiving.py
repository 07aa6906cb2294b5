"""Bytes on their way in: one writer per upload, blocks of bounded size, and connections that die half way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.requests import ClientDisconnect, Request

BLOCK = 2**20  # bytes gathered before they are written
QUIET_SECONDS = 60  # without a byte


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


async def blocks(request: Request, give_way: asyncio.Event) -> AsyncIterator[bytes]:
    """The body in blocks. Raises Cut after the last block that came."""
    gathered, size, whole = list[bytes](), 0, False
    pieces = _Pieces(request, give_way)
    try:
        while (piece := await pieces.next()) is not None:
            whole = piece == b""
            if whole:
                break
            gathered.append(piece)
            size += len(piece)
            if size >= BLOCK:
                yield b"".join(gathered)
                gathered, size = [], 0
    finally:
        pieces.close()
    if gathered:
        yield b"".join(gathered)
    if not whole:
        raise Cut


class _Pieces:
    """Of one body. There are thousands of them, so that each waits in its request's own task, and one other task, for
    the whole body, calls it away when it shall give way."""

    def __init__(self, request: Request, give_way: asyncio.Event) -> None:
        self._stream = request.stream()
        self._give_way = give_way
        self._waiting: anyio.CancelScope | None = None
        self._calling = asyncio.create_task(self._call_away())

    async def next(self) -> bytes | None:
        """The next bytes; b"" at the end of the body; None when no more will come."""
        if self._give_way.is_set():
            return None
        with anyio.move_on_after(QUIET_SECONDS) as self._waiting:
            return await self._following()
        return None

    def close(self) -> None:
        self._calling.cancel()

    async def _call_away(self) -> None:
        await self._give_way.wait()
        if self._waiting is not None:
            self._waiting.cancel()

    async def _following(self) -> bytes | None:
        try:
            async for piece in self._stream:
                if piece:
                    return piece
        except ClientDisconnect:
            return None
        return b""
