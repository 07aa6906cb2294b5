"""Where the bytes of media lie: `uploads/<random id>` while they come, `content/<hash of the scope>/<hash>` after.

No name that anyone sent becomes a path. What is said to be safe has been through fsync, the folder's entry included.
"""

from __future__ import annotations

import errno
import os
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import new as new_hash
from hashlib import sha256
from pathlib import Path

from backhaul.server.problems import refusal

BLOCK = 2**20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Files:
    def __init__(self, folder: Path) -> None:
        self._uploads = folder / "uploads"
        self._content = folder / "content"
        for each in (self._uploads, self._content):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)

    def create(self, upload: str) -> None:
        with full_disk_refused():
            os.close(os.open(self._uploads / upload, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            _sync_folder(self._uploads)

    def open(self, upload: str, position: int, algorithm: str | None) -> Tail:
        return Tail(self._uploads / upload, position, algorithm)

    def discard(self, upload: str) -> None:
        (self._uploads / upload).unlink(missing_ok=True)

    def sha256(self, upload: str) -> str | None:
        """Of the whole file, in hexadecimal; None when the file is not there."""
        hashed = sha256()
        try:
            with (self._uploads / upload).open("rb") as file:
                while block := file.read(BLOCK):
                    hashed.update(block)
        except FileNotFoundError:
            return None
        return hashed.hexdigest()

    def keep(self, upload: str, scope: str, hashed: str) -> None:
        """The upload becomes content. Renaming over the same content changes nothing."""
        place = self.content(scope, hashed)
        with full_disk_refused():
            place.parent.mkdir(exist_ok=True, mode=0o700)
            (self._uploads / upload).replace(place)
            _sync_folder(place.parent)

    def content(self, scope: str, hashed: str) -> Path:
        return self._content / sha256(scope.encode()).hexdigest() / hashed


class Tail:
    """The end of an upload's file while bytes are added. position: the byte after the last one written."""

    def __init__(self, path: Path, position: int, algorithm: str | None) -> None:
        self.position = position
        self._hash = new_hash(algorithm, usedforsecurity=False) if algorithm else None
        self._file = path.open("r+b", buffering=0)
        self.cut_back(position)

    def write(self, block: bytes) -> None:
        """Raises Refused `storage-full`."""
        if self._hash:
            self._hash.update(block)
        rest = memoryview(block)
        with full_disk_refused():
            while rest:
                rest = rest[self._file.write(rest) :]
        self.position += len(block)

    def checksum(self) -> str:
        return b64encode(self._hash.digest()).decode() if self._hash else ""

    def sync(self) -> None:
        with full_disk_refused():
            os.fsync(self._file.fileno())

    def cut_back(self, position: int) -> None:
        """Bytes that were written but never committed are as if they had not come."""
        self._file.truncate(position)
        self._file.seek(position)
        self.position = position

    def close(self) -> None:
        self._file.close()


@contextmanager
def full_disk_refused() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise refusal("storage-full", "there is no room for these bytes") from error
        raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
