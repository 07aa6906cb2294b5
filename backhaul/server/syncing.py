"""What was promised of uploads gets to the disk behind what comes: beside it, and not too far behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from backhaul.server.intake import Intake
from backhaul.server.uploads import Upload

SYNC_EVERY = 8 * 2**20  # bytes
MOST_BEHIND = 2 * SYNC_EVERY  # bytes, and a promise: what a power cut can cost

Run = Callable[..., Awaitable[Any]]


class Syncing:
    """run: calls what blocks in a thread."""

    def __init__(self, intake: Intake, run: Run) -> None:
        self._intake = intake
        self._run = run
        self._tasks: dict[str, asyncio.Future[int]] = {}

    async def follow(self, upload: Upload) -> Upload:
        """See that what was promised is on its way to the disk; wait only if that is far behind. Raises Refused."""
        if upload.position - upload.synced < SYNC_EVERY:
            return upload
        under_way = self._tasks.get(upload.id)
        if under_way is not None and upload.position - upload.synced >= MOST_BEHIND:
            upload = replace(upload, synced=max(upload.synced, await asyncio.shield(under_way)))
        if upload.id not in self._tasks and upload.position - upload.synced >= SYNC_EVERY:
            task = asyncio.ensure_future(self._run(self._intake.make_safe, upload))
            self._tasks[upload.id] = task
            task.add_done_callback(partial(self._ended, upload.id))
        return upload

    async def ended(self, upload: Upload) -> None:
        """Nothing of it is under way then: what failed has said so in its row before the whole is called safe."""
        under_way = self._tasks.get(upload.id)
        if under_way is not None:
            await asyncio.wait([under_way])

    def _ended(self, upload: str, task: asyncio.Future[int]) -> None:
        """One that failed has taken its promise back: whoever comes next finds the upload so."""
        del self._tasks[upload]
        if not task.cancelled():
            task.exception()
