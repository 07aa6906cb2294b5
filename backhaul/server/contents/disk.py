"""Contents on the server's own disk: `uploads/<random id>` while they come, `content/<hash of the scope>/<hash>` after.

What is said to be safe has been through fsync, the folder's entry included.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import sha256
from io import FileIO
from pathlib import Path

from backhaul.errors import Busy
from backhaul.server.contents.base import AT_ONCE, BLOCK, Checksum, Whole
from backhaul.server.problems import refusal

AGAIN_MS = 1_000
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskStore:
    """A ContentStore."""

    local = True

    def __init__(self, folder: Path) -> None:
        self._uploads = folder / "uploads"
        self._content = folder / "content"
        for each in (self._uploads, self._content):
            _make(each)

    def begin(self, upload: str, length: int) -> None:  # noqa: ARG002 - the seam's
        with full_disk_refused():
            os.close(os.open(self._uploads / upload, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            sync_folder(self._uploads)

    def hold(self, upload: str) -> Lock:
        return Lock(self._uploads / upload)

    def append(self, upload: str, length: int, position: int, algorithm: str | None) -> DiskTail:  # noqa: ARG002 - the same
        try:
            return DiskTail(self._uploads / upload, position, algorithm)
        except FileNotFoundError as error:
            raise refusal("not-found", "there is no such upload") from error

    def sync(self, upload: str) -> None:
        with suppress(FileNotFoundError), full_disk_refused():  # it is whole, or gone
            file = os.open(self._uploads / upload, os.O_RDONLY)
            try:
                os.fsync(file)
                if hasattr(os, "posix_fadvise"):  # a film shall not push out of memory what is asked for each minute
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)

    def whole(self, upload: str, length: int) -> FileBlocks | None:
        try:
            return FileBlocks(self._uploads / upload, 0, length)
        except FileNotFoundError:
            return None

    def publish(self, upload: str, length: int, scope: str, sha256: str) -> None:  # noqa: ARG002 - the same
        """Renaming over the same content changes nothing."""
        place = self._place(scope, sha256)
        with full_disk_refused():
            _make(place.parent)
            (self._uploads / upload).replace(place)
            sync_folder(place.parent)

    def put_all(self, scope: str, small: Mapping[str, Whole]) -> None:
        def put(named: tuple[str, Whole]) -> None:
            sha256, whole = named
            with full_disk_refused(), (self._uploads / whole.upload).open("xb", buffering=0) as file:
                os.fchmod(file.fileno(), 0o600)
                _write(file, whole.content)
                os.fsync(file.fileno())
            (self._uploads / whole.upload).replace(self._place(scope, sha256))

        folder = self._place(scope, "")
        with full_disk_refused():
            folder.mkdir(exist_ok=True, mode=0o700)
            with ThreadPoolExecutor(AT_ONCE) as writing:
                list(writing.map(put, small.items()))
            sync_folder(folder)

    def discard(self, upload: str) -> None:
        (self._uploads / upload).unlink(missing_ok=True)

    def size(self, scope: str, sha256: str) -> int | None:
        try:
            return self._place(scope, sha256).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, scope: str, sha256: str, start: int, stop: int) -> FileBlocks:
        try:
            return FileBlocks(self._place(scope, sha256), start, stop)
        except FileNotFoundError as error:
            raise refusal("not-found", "the content is lost") from error

    def address(self, scope: str, sha256: str, disposition: str, media_type: str) -> None:  # noqa: ARG002 - the same
        return None

    def remove(self, scope: str, sha256: str) -> None:
        self._place(scope, sha256).unlink(missing_ok=True)

    def free(self) -> int:
        return shutil.disk_usage(self._uploads).free

    def _place(self, scope: str, hashed: str) -> Path:
        return self._content / sha256(scope.encode()).hexdigest() / hashed


class Lock:
    """Of an upload by a file of it, as long as that is there: flock, which goes with the process that has it. Raises
    Busy. Where the file system knows no locks, it is the operator's to have one process alone."""

    def __init__(self, path: Path, *, make: bool = False) -> None:
        try:
            self._handle: int | None = os.open(path, os.O_RDWR | (os.O_CREAT if make else 0), 0o600)
        except FileNotFoundError:
            self._handle = None
            return
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._handle)
            raise Busy("another process has this upload in hand", retry_after_ms=AGAIN_MS) from error
        except OSError:
            os.close(self._handle)
            self._handle = None

    def close(self) -> None:
        if self._handle is not None:
            fcntl.flock(self._handle, fcntl.LOCK_UN)  # said, not left to close: a forked child would hold it on
            os.close(self._handle)
            self._handle = None


class DiskTail:
    """A Tail: the end of one file."""

    def __init__(self, path: Path, position: int, algorithm: str | None) -> None:
        self.position = position
        self._checksum = Checksum(algorithm)
        self._file = path.open("r+b", buffering=0)
        self.cut_back(position)

    def write(self, block: bytes | memoryview) -> None:
        self._checksum.update(block)
        with full_disk_refused():
            _write(self._file, block)
        self.position += len(block)

    def checksum(self) -> str:
        return self._checksum.coded()

    def sync(self) -> None:
        with full_disk_refused():
            os.fsync(self._file.fileno())

    def settle(self) -> None:
        """It lies where it stays."""

    def cut_back(self, position: int) -> None:
        self._file.truncate(position)
        self._file.seek(position)
        self.position = position

    def close(self) -> None:
        self._file.close()


class FileBlocks:
    """Blocks of a file. Raises FileNotFoundError, at once."""

    def __init__(self, path: Path, start: int, stop: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._file.seek(start)
        self._left = stop - start

    def __iter__(self) -> Iterator[bytes]:
        while self._left and (block := self._file.read(min(BLOCK, self._left))):
            self._left -= len(block)
            yield block

    def close(self) -> None:
        self._file.close()


def _write(file: FileIO, content: bytes | memoryview) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


@contextmanager
def full_disk_refused() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise refusal("storage-full", "there is no room for these bytes") from error
        raise


def _make(folder: Path) -> None:
    """With every folder above it; their entries outlive a crash as what will lie in them."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
