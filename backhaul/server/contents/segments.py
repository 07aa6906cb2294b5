"""Bytes of uploads on their way to a store across the network: a folder for each, a file for each part of it.

A part lies here until it is full and promised; then it may go, and its file with it. What is cut back is never more
than what lies here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from backhaul.server.contents.base import Checksum
from backhaul.server.contents.disk import FileBlocks, full_disk_refused, sync_folder
from backhaul.server.problems import refusal

LOCK = "lock"  # the file by which a process has the upload in hand
MARK = "multipart"  # the file that holds the store's own name of the upload


class Segments:
    """Of one upload. size: bytes of each part but the last; part `n` holds the bytes from `n * size` on."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size

    def create(self) -> None:
        with full_disk_refused():
            self.folder.mkdir(mode=0o700)
            sync_folder(self.folder.parent)

    def path(self, number: int) -> Path:
        return self.folder / str(number)

    def numbers(self) -> list[int]:
        """Of the parts that lie here, in their order. None do of an upload that is not here."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdigit())

    def first(self, length: int) -> FileBlocks | None:
        """The bytes of an upload of one part; None when they are not here."""
        try:
            if length == 0 and self.folder.is_dir():
                self.path(0).touch(0o600)
            return FileBlocks(self.path(0), 0, length)
        except FileNotFoundError:
            return None

    def cut_back(self, position: int) -> None:
        """Raises Refused `not-found`: what should lie before the position does not."""
        kept, rest = divmod(position, self.size)
        if not self.folder.is_dir() or (rest and not self.path(kept).exists()):
            raise refusal("not-found", "there is no such upload")
        for number in self.numbers():
            if number > kept or (number == kept and not rest):
                self.path(number).unlink()
        if rest:
            os.truncate(self.path(kept), rest)

    @property
    def mark(self) -> str | None:
        try:
            return (self.folder / MARK).read_text()
        except FileNotFoundError:
            return None

    def keep_mark(self, mark: str) -> None:
        with full_disk_refused():
            fresh = self.folder / "fresh"
            with fresh.open("w") as file:
                file.write(mark)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.folder / MARK)
            sync_folder(self.folder)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class SegmentTail:
    """A Tail. moved: is told up to where the bytes are promised."""

    def __init__(self, segments: Segments, position: int, algorithm: str | None, moved: Callable[[int], None]) -> None:
        self._segments = segments
        self._checksum = Checksum(algorithm)
        self._moved = moved
        self._file: BinaryIO | None = None
        self.cut_back(position)

    def write(self, block: bytes | memoryview) -> None:
        self._checksum.update(block)
        rest = memoryview(block)
        with full_disk_refused():
            while rest:
                room = self._segments.size - self.position % self._segments.size
                written = self._current().write(rest[:room])
                self.position += written
                rest = rest[written:]
                if written == room:
                    self._leave()

    def checksum(self) -> str:
        return self._checksum.coded()

    def sync(self) -> None:
        with full_disk_refused():
            if self._file is not None:
                os.fsync(self._file.fileno())
            sync_folder(self._segments.folder)

    def settle(self) -> None:
        self._moved(self.position)

    def cut_back(self, position: int) -> None:
        self.close()
        self._segments.cut_back(position)
        self.position = position

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _current(self) -> BinaryIO:
        if self._file is None:
            number = self.position // self._segments.size
            self._file = self._segments.path(number).open("ab", buffering=0)
        return self._file

    def _leave(self) -> None:
        """The part is full. It must be safe before the next one is."""
        if self._file is not None:
            os.fsync(self._file.fileno())
        self.close()
