"""The seam of the content store: bytes of uploads while they come, and of contents once they are whole and checked.

An upload is the store's under its own random name; a content under its scope and its SHA-256. No name that anyone sent
becomes a path or a key. What `sync` has returned from outlives a crash. A content is there whole, or not at all.

Every method blocks, and raises of our own errors alone: Refused (`storage-full`, `not-found`), and Busy for a store
across the network that wants to be left alone or does not answer: the same call again is safe.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import new as new_hash
from typing import Protocol

BLOCK = 2**20  # bytes that are read at once
AT_ONCE = 16  # small contents on their way to a disk or a bucket, whose waits then add up to one


class Tail(Protocol):
    """The end of an upload while bytes are added. position: the byte after the last one written."""

    position: int

    def write(self, block: bytes | memoryview) -> None: ...

    def checksum(self) -> str:
        """Of what was written, by the algorithm that was asked for, in base64."""

    def sync(self) -> None:
        """What was written outlives a crash."""

    def settle(self) -> None:
        """What was synced is promised by now: it may be moved to where it stays."""

    def cut_back(self, position: int) -> None:
        """Bytes that were written but never promised are as if they had not come."""

    def close(self) -> None: ...


class Held(Protocol):
    """An upload that nobody else goes on with, until this is closed."""

    def close(self) -> None: ...


class Blocks(Protocol):
    """Bytes to be read, in blocks; to be closed by who has them."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Whole:
    """A small content. upload: the name that its bytes may have until it is in its place."""

    upload: str
    content: bytes | memoryview


class ContentStore(Protocol):
    """length: bytes of the whole upload, the same at every call. local: whether an upload is one file of this machine's
    until it is published: what was written outlives this process, synced or not, and is read as it was written."""

    local: bool

    def begin(self, upload: str, length: int) -> None:
        """An empty upload."""

    def hold(self, upload: str) -> Held:
        """For as long as it is read and written, against other processes. Of one that is not here nothing is held.
        Raises Busy: another one has it."""

    def append(self, upload: str, length: int, position: int, algorithm: str | None) -> Tail:
        """What lies beyond the position was never promised: it is cut off. Raises Refused `not-found`."""

    def sync(self, upload: str) -> None:
        """What was written of a local upload by now outlives a power cut."""

    def whole(self, upload: str, length: int) -> Blocks | None:
        """All bytes of an upload that has them all; None when it is not here (any more)."""

    def publish(self, upload: str, length: int, scope: str, sha256: str) -> None:
        """The upload, whose `whole` was read and has this hash, becomes content. What is there already stays."""

    def put_all(self, scope: str, small: Mapping[str, Whole]) -> None:
        """Small contents at once, each by its SHA-256; when this returns, they outlive a crash. What is there already
        stays. When it fails some of them may be there."""

    def discard(self, upload: str) -> None:
        """Whatever there is of the upload. What was published stays."""

    def size(self, scope: str, sha256: str) -> int | None:
        """Bytes of a content; None: it is not there."""

    def read(self, scope: str, sha256: str, start: int, stop: int) -> Blocks:
        """The bytes from `start` up to `stop`, which is within the content. Raises Refused `not-found`."""

    def address(self, scope: str, sha256: str, disposition: str, media_type: str) -> str | None:
        """A URL that gives the content to whoever has it, for a short time; None: it is read through us."""

    def remove(self, scope: str, sha256: str) -> None:
        """Nothing happens if it is not there."""

    def free(self) -> int | None:
        """Bytes that there is room for; None when there is no telling."""


class Checksum:
    """Of what goes by. algorithm: None reckons nothing."""

    def __init__(self, algorithm: str | None) -> None:
        self._hash = new_hash(algorithm, usedforsecurity=False) if algorithm else None

    def update(self, block: bytes | memoryview) -> None:
        if self._hash:
            self._hash.update(block)

    def coded(self) -> str:
        return b64encode(self._hash.digest()).decode() if self._hash else ""
