"""The media of a server in memory: resumable uploads by the contract of `MediaRemote`, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256 as new_sha256
from itertools import count

from backhaul.errors import Refused
from backhaul.remotes.base import Fetched, Whole


@dataclass(kw_only=True)
class _Upload:
    size: int
    sha256: str
    name: str
    media_type: str
    received: bytearray = field(default_factory=bytearray)


class MemoryMediaRemote:
    """A MediaRemote. whole: the contents it has, by SHA-256. appended: the bytes of all appends that were kept.
    fetched: the bytes of all that was fetched."""

    def __init__(self) -> None:
        self.whole: dict[str, bytes] = {}
        self.uploads: dict[str, _Upload] = {}
        self.appended = 0
        self.fetched = 0
        self._numbers = count(1)

    def has(self, sha256: str) -> bool:
        return sha256 in self.whole

    def known(self, hashes: Sequence[str]) -> set[str]:
        return self.whole.keys() & set(hashes)

    def send_whole(self, contents: Sequence[Whole]) -> set[str]:
        good = {one.sha256: one.content for one in contents if new_sha256(one.content).hexdigest() == one.sha256}
        self.appended += sum(map(len, good.values()))
        self.whole |= good
        return set(good)

    def create(self, *, size: int, sha256: str, name: str, media_type: str) -> str:
        address = f"/v1/media/{next(self._numbers)}"
        self.uploads[address] = _Upload(size=size, sha256=sha256, name=name, media_type=media_type)
        self._complete(address)
        return address

    def sent(self, address: str) -> int | None:
        upload = self.uploads.get(address)
        return None if upload is None else len(upload.received)

    def append(self, address: str, at: int, chunk: bytes | memoryview) -> int:
        upload = self.uploads.get(address)
        if upload is None:
            raise Refused("no such upload", problem="not-found", status=404)
        if at != len(upload.received):
            raise Refused(f"the upload is at {len(upload.received)}", problem="offset-mismatch", status=409)
        if at + len(chunk) > upload.size:
            raise Refused("more bytes than the upload has", problem="upload-too-large", status=413)
        upload.received += chunk
        self.appended += len(chunk)
        self._complete(address)
        return len(upload.received)

    def fetch(self, sha256: str, at: int, most: int) -> Fetched:
        content = self.whole.get(sha256)
        if content is None:
            raise Refused("no such content", problem="not-found", status=404)
        if at > 0 and at >= len(content):
            raise Refused("beyond the end", problem="range-unsatisfiable", status=416)
        self.fetched += len(content[at : at + most])
        return Fetched(content[at : at + most], len(content))

    def forget(self) -> None:
        """Every unfinished upload, as a server does with those that have expired."""
        self.uploads.clear()

    def close(self) -> None:
        """There is nothing to close."""

    def _complete(self, address: str) -> None:
        upload = self.uploads[address]
        if len(upload.received) < upload.size:
            return
        if new_sha256(upload.received).hexdigest() != upload.sha256:
            del self.uploads[address]
            raise Refused("the content is not what its hash promised", problem="content-mismatch", status=422)
        self.whole[upload.sha256] = bytes(upload.received)
