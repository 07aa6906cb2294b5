"""A camera: a host that puts files, and workers that run what is rung for, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from backhaul.bell import MediaRules, Queue
from backhaul.files import DOWNLOAD, UPLOAD, Media
from backhaul.media import together, transfer, uploads
from backhaul.media.store import Store
from backhaul.media.turns import Order
from backhaul.media.uploads import Upload
from backhaul.remotes.base import Whole
from backhaul.remotes.memory_media import MemoryMediaRemote
from backhaul.work.beside import Beside
from backhaul.work.context import Context
from backhaul.work.run import Settled
from tests.contract.work.conftest import clock, database, desk, kind, on_postgresql, patient
from tests.unit.work.desk import Desk

__all__ = ["clock", "database", "desk", "kind", "on_postgresql", "patient"]  # fixtures, as the tests of work have them

KIB = 2**10
CHUNK = 64 * KIB


class Counting(MemoryMediaRemote):
    """messages: the files of each. asked: the hashes of each question."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[list[Whole]] = []
        self.asked: list[list[str]] = []

    def known(self, hashes: Sequence[str]) -> set[str]:
        self.asked.append(list(hashes))
        return super().known(hashes)

    def send_whole(self, contents: Sequence[Whole]) -> set[str]:
        self.messages.append(list(contents))
        return super().send_whole(contents)


@dataclass
class Camera:
    desk: Desk
    folder: Path
    remote: Counting = field(default_factory=Counting)
    order: Order = "small"
    limit: int | None = None

    def __post_init__(self) -> None:
        self.desk.bell.queues = [Queue(name="media", kinds=frozenset({UPLOAD, DOWNLOAD})), Queue(name="other")]
        self.desk.bell.media = MediaRules(folder=self.folder / "media", keep=True)
        self.media = Media(self.desk.database, self.desk.bell, self.desk.clock)

    def put(self, content: bytes, **options: Any) -> Upload:
        """A millisecond after the one before."""
        self.desk.clock.advance(1)
        return self.media.put(content, **options)

    def put_many(self, number: int, size: int = 100) -> list[Upload]:
        return [self.put(f"{one} ".encode() * (size // 4)) for one in range(1_000, 1_000 + number)]

    def run(self, this: Upload) -> Settled:
        """A message of this upload has come to a worker."""
        return self.desk.run(this.id, self.send)

    def send(self, context: Context) -> dict[str, Any]:
        run = transfer.Transfer(
            database=self.desk.database,
            remote=self.remote,
            clock=self.desk.clock,
            context=context,
            chunk_bytes=CHUNK,
            queue="media",
            worker="w1",
            store=Store(self.folder / "media"),
            most_bytes=lambda: self.limit,
        )
        return together.upload(run, context.id, Beside(context), order=self.order)

    def row(self, this: Upload) -> Upload:
        with self.desk.database.reading() as connection:
            return uploads.get(connection, this.id)

    def states(self, some: Sequence[Upload]) -> set[tuple[str, str]]:
        """Of the uploads and of their works."""
        return {(self.row(this).state, self.desk.state(this.id)) for this in some}


@pytest.fixture
def camera(desk: Desk, tmp_path: Path) -> Camera:
    return Camera(desk, tmp_path)
