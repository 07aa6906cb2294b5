"""How much more the files of a scope may take: of the disk, and of the quota that an operator has set."""

from __future__ import annotations

from sqlalchemy import Connection

from backhaul.errors import Refused
from backhaul.server import scopes, uploads
from backhaul.server.contents.base import ContentStore
from backhaul.server.problems import refusal


class Room:
    """quota: bytes of each scope; None: as many as one likes."""

    def __init__(self, store: ContentStore, quota: int | None) -> None:
        self._store = store
        self._quota = quota

    def check_disk(self, length: int) -> None:
        """Raises Refused `storage-full`."""
        free = self._store.free()
        if free is not None and length > free:
            raise refusal("storage-full", "there is no room for a file of this size")

    def left(self, connection: Connection, scope: str, now: int) -> int | None:
        """Bytes, which nobody else takes before this transaction ends; None without a quota."""
        if self._quota is None:
            return None
        scopes.lock(connection, scope)
        return self._quota - uploads.taken(connection, scope, now)

    def exceeded(self) -> Refused:
        return refusal("quota-exceeded", f"the files of a scope may have {self._quota} bytes", limit=self._quota)
