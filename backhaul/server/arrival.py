"""One body on its way into an upload: written, hashed and promised as it comes, and made safe on disk behind that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

from backhaul.errors import Refused
from backhaul.server.contents.base import Tail
from backhaul.server.hashes import Running
from backhaul.server.intake import Intake
from backhaul.server.problems import refusal
from backhaul.server.receiving import Cut
from backhaul.server.tus import Checksum
from backhaul.server.uploads import Upload

PROMISE_EVERY = 4 * 2**20  # bytes of a body without a checksum: what the death of the process can cost
SYNC_EVERY = 4 * 2**20  # bytes: with as much that is on its way, what a power cut can cost

Run = Callable[..., Awaitable[Any]]


class Arrival:
    """run: calls what blocks in a thread."""

    def __init__(self, intake: Intake, upload: Upload, checksum: Checksum | None, run: Run) -> None:
        self._intake = intake
        self._upload = upload
        self._checksum = checksum
        self._run = run
        self._syncing: asyncio.Task[int] | None = None

    async def take(self, coming: AsyncIterator[bytes]) -> Upload:
        """The upload as it is then. Raises Refused, Busy; what was promised by then is kept."""
        tail, running = await self._run(self._intake.open, self._upload, self._checksum)
        try:
            await self._follow(tail)
            await self._take(coming, tail, running)
            await self._caught_up()
        finally:
            if self._syncing is not None:
                await asyncio.gather(self._syncing, return_exceptions=True)  # another failure goes first
            tail.close()
            self._intake.keep(self._upload, running)
        return self._upload

    async def _take(self, coming: AsyncIterator[bytes], tail: Tail, running: Running | None) -> None:
        try:
            async for block in coming:
                if tail.position + len(block) > self._upload.length:
                    raise refusal("upload-too-large", f"the upload has {self._upload.length} bytes")
                await self._run(self._intake.write, tail, running, block)
                if self._checksum is None and tail.position - self._upload.position >= PROMISE_EVERY:
                    await self._promise(tail)
                    await self._follow(tail)
            if self._checksum is not None and tail.checksum() != self._checksum.value:
                raise refusal("checksum-mismatch", "the bytes are not those of the checksum; they were thrown away")
        except Cut as cut:
            if self._checksum is None:
                await self._promise(tail)
            raise refusal("request-timeout", "the rest of the bytes did not come") from cut
        except Refused:
            tail.cut_back(self._upload.position)
            raise
        await self._promise(tail)

    async def _promise(self, tail: Tail) -> None:
        if tail.position > self._upload.position:
            self._upload = await self._run(self._intake.promise, self._upload, tail)

    async def _follow(self, tail: Tail) -> None:
        """See that what was promised gets to the disk, while more comes."""
        if self._upload.position - self._upload.synced >= SYNC_EVERY:
            await self._caught_up()
            self._syncing = asyncio.ensure_future(self._run(self._intake.make_safe, self._upload, tail))

    async def _caught_up(self) -> None:
        if self._syncing is not None:
            synced = await self._syncing
            self._upload = replace(self._upload, synced=max(synced, self._upload.synced))
            self._syncing = None
