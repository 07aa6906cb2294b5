"""The SHA-256 of uploads, reckoned while their bytes come, so that none has to be read once more at its end.

It is in memory and nowhere else: of an upload that another process has begun there is none, and the whole is read.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from threading import Lock

from backhaul.server.media_types import MOST_NEEDED
from backhaul.server.uploads import Upload

MOST = 1_000  # uploads; of the others, the whole is read


class Running:
    """Of the bytes up to `position`. start: the first of them, as many as tell a type."""

    def __init__(self) -> None:
        self.position = 0
        self.start = b""
        self._hash = sha256()

    def add(self, block: bytes | memoryview) -> None:
        self.start += block[: MOST_NEEDED - len(self.start)]
        self._hash.update(block)
        self.position += len(block)

    def found(self) -> tuple[str, bytes]:
        return self._hash.hexdigest(), self.start


class Hashes:
    """Of uploads between two of their requests."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: OrderedDict[str, Running] = OrderedDict()
        self._lock = Lock()

    def take(self, upload: Upload) -> Running | None:
        """Whoever takes it has it alone: what it adds and does not keep is as if it had not come. None: of other bytes
        than those that are here."""
        with self._lock:
            kept = self._kept.pop(upload.id, None)
        if upload.position == 0:
            return Running()
        return kept if kept is not None and kept.position == upload.position else None

    def keep(self, upload: str, running: Running) -> None:
        with self._lock:
            self._kept[upload] = running
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
