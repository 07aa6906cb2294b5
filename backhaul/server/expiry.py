"""The end of uploads that nobody goes on with, once an hour: their bytes are discarded, and their rows forgotten.

Content that lies in its place, and that no row tells of, is that of an upload whose server died between the two, and
whose replica never asked again. It was checked, and is whole: so it is entered now, before the upload that it came by
is forgotten and nothing would ever name it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing, suppress

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import Busy
from backhaul.server import tus, uploads
from backhaul.server.contents.base import ContentStore
from backhaul.server.uploads import Content, Upload

EVERY_MS = 3_600_000


class Expiry:
    def __init__(self, store: ContentStore, database: Database, clock: Clock) -> None:
        self._store = store
        self._database = database
        self._clock = clock
        self._looked_at = 0

    def look_now_and_then(self, busy: Callable[[str, str], bool]) -> None:
        """busy: whether an upload of a scope is being written to."""
        now = self._clock.now()
        if now - self._looked_at < EVERY_MS:
            return
        self._looked_at = now
        with self._database.reading() as connection:
            found = uploads.expired(connection, now)
            known = uploads.known_of(connection, found)
        if len(found) == uploads.AT_ONCE:
            self._looked_at = 0  # there are more
        gone, published = list[str](), defaultdict[tuple[str, str], list[Content]](list)
        for upload in found:
            if busy(upload.scope, upload.id):
                continue
            with suppress(Busy), closing(self._store.hold(upload.id)):
                if upload.id not in known:
                    published[upload.scope, upload.replica] += self._published(upload)
                self._store.discard(upload.id)
                gone.append(upload.id)
        with self._database.writing() as connection:
            for (scope, replica), contents in published.items():
                uploads.enter_all(connection, scope, replica, contents, now)
            uploads.forget_expired(connection, gone, now)

    def _published(self, upload: Upload) -> Sequence[Content]:
        """What came by it, if it lies in its place."""
        if not upload.sha256 or self._store.size(upload.scope, upload.sha256) != upload.length:
            return []
        told = tus.metadata(upload.metadata)
        return [Content(sha256=upload.sha256, size=upload.length, name=told.name, media_type=told.media_type)]
