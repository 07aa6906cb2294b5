"""Bytes on their way in: one writer per upload, blocks of bounded size, and connections that die half way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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
    gathered, whole = bytearray(), False
    stream = request.stream()
    while (piece := await _piece(stream, give_way)) is not None:
        whole = piece == b""
        if whole:
            break
        gathered += piece
        if len(gathered) >= BLOCK:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)
    if not whole:
        raise Cut


async def _piece(stream: AsyncIterator[bytes], give_way: asyncio.Event) -> bytes | None:
    """The next bytes; b"" at the end of the body; None when no more will come."""
    following = asyncio.create_task(_following(stream))
    called = asyncio.create_task(give_way.wait())
    try:
        await asyncio.wait({following, called}, timeout=QUIET_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return following.result() if following.done() else None
    finally:
        called.cancel()
        following.cancel()


async def _following(stream: AsyncIterator[bytes]) -> bytes | None:
    try:
        async for piece in stream:
            if piece:
                return piece
    except ClientDisconnect:
        return None
    return b""
