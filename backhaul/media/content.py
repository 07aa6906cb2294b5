"""What a file holds: its size, when it was written, and the SHA-256 (FIPS 180-4) that names its content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from stat import S_ISDIR, S_ISREG

CHUNK = 2**20


class Unreadable(Exception):
    """The path leads to no file that can be read; the message says why. It becomes one of our errors in the journey."""


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What the file system says without reading."""

    size: int
    modified_ns: int


@contextmanager
def opened(path: Path) -> Iterator[FileIO]:
    """The file, for reading, without a buffer of its own. Raises Unreadable, also for what is no regular file.

    Looked at before it is opened: to open a named pipe would wait for a writer.
    """
    try:
        mode = path.stat().st_mode
        if not S_ISREG(mode):
            raise Unreadable(f"{path} is {'a folder' if S_ISDIR(mode) else 'no regular file'}")
        file = FileIO(path)
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path} cannot be read: {_cause(error)}") from error
    with file:
        yield file


def outside(file: FileIO) -> Outside:
    status = os.fstat(file.fileno())
    return Outside(size=status.st_size, modified_ns=status.st_mtime_ns)


def sha256(file: FileIO) -> str:
    """Of the whole file, in lower-case hexadecimal; memory: one chunk. Raises Unreadable."""
    digest, room = hashlib.sha256(), bytearray(CHUNK)
    file.seek(0)
    while size := read_into(file, memoryview(room)):
        digest.update(memoryview(room)[:size])
    return digest.hexdigest()


def read_into(file: FileIO, room: memoryview) -> int:
    """Fills the room, unless the file ends; how many bytes there are. Raises Unreadable."""
    filled = 0
    try:
        while filled < len(room) and (size := file.readinto(room[filled:])):
            filled += size
    except OSError as error:
        raise Unreadable(f"the file cannot be read any further: {_cause(error)}") from error
    return filled


def _cause(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
