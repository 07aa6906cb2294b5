"""One body on its way into an upload: written, hashed and promised as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from backhaul.errors import Refused
from backhaul.server.contents.base import Tail
from backhaul.server.hashes import Running
from backhaul.server.intake import Intake
from backhaul.server.problems import refusal
from backhaul.server.receiving import Cut
from backhaul.server.syncing import Syncing
from backhaul.server.tus import Checksum
from backhaul.server.uploads import Upload

PROMISE_EVERY = 4 * 2**20  # bytes of a body without a checksum: what the death of the process can cost

Run = Callable[..., Awaitable[Any]]


class Arrival:
    """run: calls what blocks in a thread. announced: bytes of the body; None: it was not said.

    A block is written while the next one comes. On a machine that has much to do each change of threads waits for its
    turn, and who sends would wait with it."""

    def __init__(
        self,
        intake: Intake,
        syncing: Syncing,
        upload: Upload,
        *,
        checksum: Checksum | None,
        announced: int | None,
        run: Run,
    ) -> None:
        self._intake = intake
        self._syncing = syncing
        self._upload = upload
        self._checksum = checksum
        self._end = None if announced is None else upload.position + announced
        self._run = run
        self._tail: Tail | None = None
        self._running: Running | None = None
        self._writing: asyncio.Future[None] | None = None

    async def take(self, coming: AsyncIterator[bytes | memoryview]) -> Upload:
        """The upload as it is then. Raises Refused, Busy; what was promised by then is kept."""
        try:
            self._upload = await self._syncing.follow(self._upload)
            await self._take(coming)
        finally:
            if self._tail is not None:
                self._tail.close()
                self._intake.keep(self._upload, self._running)
        return self._upload

    async def _take(self, coming: AsyncIterator[bytes | memoryview]) -> None:
        at = self._upload.position
        try:
            try:
                async for block in coming:
                    await self._written()
                    at += len(block)
                    if at == self._upload.length:
                        await self._syncing.ended(self._upload)
                    self._writing = asyncio.ensure_future(self._run(self._write, block))
            finally:
                await self._written()
        except Cut as cut:
            if self._checksum is None:
                await self._run(self._promise)
            raise refusal("request-timeout", "the rest of the bytes did not come") from cut
        except Refused:
            self._cut_back()
            raise
        if not self._promised:
            await self._run(self._promise)

    async def _written(self) -> None:
        """The block before is; what of it was promised is on its way to the disk."""
        if self._writing is None:
            return
        writing, self._writing, before = self._writing, None, self._upload.position
        await writing
        if self._upload.position > before:
            self._upload = await self._syncing.follow(self._upload)

    @property
    def _promised(self) -> bool:
        return self._tail is None or self._tail.position == self._upload.position

    def _write(self, block: bytes | memoryview) -> None:
        if self._tail is None:
            self._tail, self._running = self._intake.open(self._upload, self._checksum)
        position = self._tail.position + len(block)
        if position > self._upload.length:
            raise refusal("upload-too-large", f"the upload has {self._upload.length} bytes")
        self._tail.write(block)
        if self._running is not None:
            self._running.add(block)
        if self._checksum is None and (position == self._end or position - self._upload.position >= PROMISE_EVERY):
            self._promise()

    def _promise(self) -> None:
        if self._tail is None or self._promised:
            return
        if self._checksum is not None and self._tail.checksum() != self._checksum.value:
            self._cut_back()
            raise refusal("checksum-mismatch", "the bytes are not those of the checksum; they were thrown away")
        self._upload = self._intake.promise(self._upload, self._tail)

    def _cut_back(self) -> None:
        if self._tail is not None:
            self._tail.cut_back(self._upload.position)
