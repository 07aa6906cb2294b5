"""An upload's way from its first byte to content: the blocking half, files and rows moving together.

The order is what makes a crash harmless: bytes, then their sync, then the offset that promises them; and at the end
the hash, then the file's new place, then the row that says so. Whatever is cut in between is done again.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import replace

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.server import tus, uploads
from backhaul.server.auth import Replica
from backhaul.server.files import Files, Tail
from backhaul.server.problems import refusal
from backhaul.server.settings import Settings
from backhaul.server.tus import Checksum, Metadata
from backhaul.server.uploads import Content, Upload

PURGE_EVERY_MS = 3_600_000


class Intake:
    def __init__(self, settings: Settings, database: Database, clock: Clock) -> None:
        self.files = Files(settings.data / "media")
        self._lifetime_ms = settings.upload_lifetime_ms
        self._database = database
        self._clock = clock
        self._purged_at = 0

    def make(self, name: str, replica: Replica, length: int, metadata: str) -> Upload:
        now = self._clock.now()
        made = Upload(
            id=name,
            scope=replica.scope,
            replica=replica.id,
            length=length,
            position=0,
            sha256=tus.metadata(metadata).sha256,
            metadata=metadata,
            expires_at=now + self._lifetime_ms,
        )
        self.files.create(name)
        with self._database.writing() as connection:
            uploads.create(connection, made, now)
        return made

    def find(self, replica: Replica, name: str) -> Upload:
        """Raises Refused: `not-found`, `upload-expired`."""
        with self._database.reading() as connection:
            found = uploads.find(connection, replica.scope, name)
        if found is None:
            raise refusal("not-found", "there is no such upload")
        if found.expires_at <= self._clock.now():
            raise refusal("upload-expired", "the upload has expired")
        return found

    def open(self, upload: Upload, checksum: Checksum | None) -> Tail:
        try:
            return self.files.open(upload.id, upload.position, checksum.algorithm if checksum else None)
        except FileNotFoundError as error:
            raise refusal("not-found", "there is no such upload") from error

    def commit(self, upload: Upload, tail: Tail) -> Upload:
        """The bytes so far are safe."""
        tail.sync()
        expires_at = self._clock.now() + self._lifetime_ms
        with self._database.writing() as connection:
            if not uploads.advance(
                connection, upload.id, since=upload.position, to=tail.position, expires_at=expires_at
            ):
                raise refusal("not-found", "there is no such upload any more")
        return replace(upload, position=tail.position, expires_at=expires_at)

    def complete(self, upload: Upload) -> None:
        """Every byte is here: check the whole, and enter it. Harmless to repeat, wherever it was cut before.

        Raises Refused `content-mismatch`; the upload is gone then.
        """
        if upload.completed_at is not None:
            return
        hashed = self.files.sha256(upload.id)
        if hashed is None:
            hashed = self._moved_already(upload)
        elif upload.sha256 and not hmac.compare_digest(hashed, upload.sha256):
            self.discard(upload.id)
            raise refusal("content-mismatch", f"the content has the SHA-256 {hashed}")
        else:
            self.files.keep(upload.id, upload.scope, hashed)
        told = tus.metadata(upload.metadata)
        with self._database.writing() as connection:
            uploads.complete(connection, upload, _content(upload, hashed, told), self._clock.now())

    def discard(self, name: str) -> None:
        with self._database.writing() as connection:
            uploads.forget(connection, name)
        self.files.discard(name)

    def content(self, replica: Replica, hashed: str) -> Content:
        """Raises Refused `not-found`."""
        with self._database.reading() as connection:
            found = uploads.content(connection, replica.scope, hashed)
        if found is None:
            raise refusal("not-found", "there is no such content")
        return found

    def purge_now_and_then(self, busy: Callable[[str], bool]) -> None:
        """Once an hour, discard what has expired and is not being written to."""
        now = self._clock.now()
        if now - self._purged_at < PURGE_EVERY_MS:
            return
        self._purged_at = now
        with self._database.reading() as connection:
            names = uploads.expired(connection, now)
        for name in names:
            if not busy(name):
                self.discard(name)

    def _moved_already(self, upload: Upload) -> str:
        """The hash of an upload whose file has gone to its place, but whose row does not say so yet."""
        if upload.sha256 and self.files.content(upload.scope, upload.sha256).exists():
            return upload.sha256
        self.discard(upload.id)
        raise refusal("not-found", "the upload was lost; send it again")


def _content(upload: Upload, hashed: str, told: Metadata) -> Content:
    return Content(sha256=hashed, size=upload.length, name=told.name, media_type=told.media_type)
