"""The folder of kept contents, each a file that is named by its SHA-256: never seen but whole, never written to again.

    incoming/NAME      on its way in; locked (flock) by who writes it
    incoming/HASH.part what has come of a download
    ab/abcdef...       a content; read-only, last modified at 0, so that every edit of it shows
    lock               shared from a content's arrival until its row is committed; alone: to judge what has no row

A content is a clone of the file that was put where the file system can share blocks until one side writes (FICLONE:
btrfs, XFS, bcachefs), a copy elsewhere. Never a hard link: an edit in place of the one would be an edit of the other.
A lock ends with its process, however that ends: what is left unlocked in `incoming` has nobody any more.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from uuid import uuid4

from backhaul.errors import Busy, StorageFull
from backhaul.media.content import CHUNK, read_into, sha256

FICLONE = 0x40049409  # ioctl_ficlonerange(2)
KEPT_NS = 0
INCOMING = "incoming"
PART = ".part"
PREFIX = 2  # hexadecimal digits: a folder for each
PREFIXES = [f"{number:0{PREFIX}x}" for number in range(16**PREFIX)]


@dataclass(frozen=True)
class Incoming:
    """A file that nobody sees yet."""

    path: Path
    file: FileIO


class Store:
    """folder: made by the first content that is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def exists(self) -> bool:
        return self.folder.is_dir()

    def path(self, content: str) -> Path:
        """Where a content is, or would be. content: its SHA-256, in lower-case hexadecimal."""
        return self.folder / content[:PREFIX] / content

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A new empty file, which is gone at the end unless it was admitted. Raises StorageFull."""
        with self.writing():
            self._make(INCOMING)
            path = self.folder / INCOMING / uuid4().hex
            with self.arriving():
                file = FileIO(path, "xb+")
                fcntl.flock(file, fcntl.LOCK_EX)
        try:
            with file:
                yield Incoming(path, file)
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def part(self, content: str) -> Iterator[Incoming]:
        """What has come of a content so far; it stays until it is admitted. Raises StorageFull, and Busy where another
        process has it."""
        with self.writing():
            self._make(INCOMING)
            path = self.folder / INCOMING / f"{content}{PART}"
            with self.arriving():
                file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "rb+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Busy(f"another process fetches {content}") from error
            yield Incoming(path, file)

    def forget_part(self, content: str) -> None:
        (self.folder / INCOMING / f"{content}{PART}").unlink(missing_ok=True)

    def fill(self, incoming: Incoming, source: FileIO) -> str:
        """All that the source holds; returns the SHA-256 of what is there now. Raises StorageFull, Unreadable."""
        with suppress(OSError):  # another file system, or one that cannot
            fcntl.ioctl(incoming.file, FICLONE, source.fileno())
            return sha256(incoming.file)
        digest, room = hashlib.sha256(), memoryview(bytearray(CHUNK))
        source.seek(0)
        while size := read_into(source, room):
            digest.update(room[:size])
            with self.writing():
                write(incoming.file, room[:size])
        return digest.hexdigest()

    def flush(self, incoming: Incoming) -> None:
        """It is on the disk: before the transaction, which the app would wait for. Raises StorageFull."""
        with self.writing():
            os.fsync(incoming.file.fileno())

    def admit(self, incoming: Incoming, content: str) -> None:
        """It is this content, and on the disk. Within `arriving`, until its row is committed. Raises StorageFull."""
        with self.writing():
            self._make(content[:PREFIX])
            os.fchmod(incoming.file.fileno(), 0o400)
            os.utime(incoming.file.fileno(), ns=(KEPT_NS, KEPT_NS))
            os.fsync(incoming.file.fileno())
            target = self.path(content)
            incoming.path.rename(target)
            _sync_folder(target.parent)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What the file system refuses is StorageFull."""
        try:
            yield
        except OSError as error:
            raise StorageFull(
                f"{self.folder} takes no file: {error.strerror or error}", hint="make room there; nothing was changed"
            ) from error

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """While a content may be here that has no row yet. Raises StorageFull."""
        with self.writing():
            lock = self._lock()
        with lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody is arriving, and nobody can while this lasts."""
        with self._lock() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def contents(self, prefix: str) -> dict[str, int]:
        """The contents that begin so, each with its size."""
        try:
            with os.scandir(self.folder / prefix) as entries:
                return {entry.name: entry.stat().st_size for entry in entries}
        except FileNotFoundError:
            return {}

    def remove(self, content: str) -> None:
        self.path(content).unlink(missing_ok=True)

    def leftovers(self) -> list[Path]:
        """What nobody writes any more. Within `alone`: nobody begins, either."""
        folder = self.folder / INCOMING
        return [path for path in folder.iterdir() if _abandoned(path)] if folder.is_dir() else []

    def _lock(self) -> FileIO:
        self._make()
        return FileIO(os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")

    def _make(self, name: str = "") -> None:
        folder = self.folder / name
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync_folder(folder.parent)


def write(file: FileIO, chunk: memoryview) -> None:
    """All of it, where the file stands."""
    at = 0
    while at < len(chunk):
        at += file.write(chunk[at:])


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _abandoned(path: Path) -> bool:
    try:
        with FileIO(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):
        return False
    return True
