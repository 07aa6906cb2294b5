"""An upload's way from its first byte to content: the blocking half, files and rows moving together.

The order is what makes a crash harmless: bytes, then the offset that promises them; and at the end the sync, the hash,
the file's new place, and the row that says so. Whatever is cut in between is done again.

An offset on the server's own disk is one that outlives the process: the kernel has the bytes. What would outlive a
power cut follows behind; the row says how far that is, and since which start of the machine the offset is good. Without
a start to go by, and on the way to a bucket, each offset waits for the disk.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from hashlib import sha256

from sqlalchemy import Connection

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import Busy, DatabaseBusy, Refused
from backhaul.server import auth, tus, uploads
from backhaul.server.auth import Replica
from backhaul.server.boot import boot_id
from backhaul.server.contents.base import ContentStore, Held, Tail
from backhaul.server.hashes import Hashes, Running
from backhaul.server.media_types import MOST_NEEDED, Policy
from backhaul.server.problems import refusal
from backhaul.server.room import Room
from backhaul.server.settings import Settings
from backhaul.server.tus import Checksum, Metadata
from backhaul.server.uploads import Content, Upload

COPIED_AT_ONCE = 16 * 2**20  # bytes, between two commits


class Intake:
    def __init__(self, store: ContentStore, settings: Settings, database: Database, clock: Clock) -> None:
        self.store = store
        self._boot = boot_id() if store.local else ""
        self._hashes = Hashes()
        self._policy = Policy(settings.media_types)
        self._room = Room(store, settings.media_quota)
        self._lifetime_ms = settings.upload_lifetime_ms
        self._database = database
        self._clock = clock

    def make(self, name: str, replica: Replica, length: int, metadata: str, concat: str = "") -> Upload:
        """Raises Refused: `media-type-forbidden`, `storage-full`, `quota-exceeded`."""
        now, told = self._clock.now(), tus.metadata(metadata)
        if concat != "partial":
            self._policy.check_declared(told.media_type)
        made = Upload(
            id=name,
            scope=replica.scope,
            replica=replica.id,
            length=length,
            position=0,
            sha256=told.sha256,
            metadata=metadata,
            concat=concat,
            expires_at=now + self._lifetime_ms,
        )
        self._room.check_disk(length)
        self.store.begin(name, length)
        try:
            with self._database.writing() as connection:
                self._check_quota(connection, made, now)
                uploads.create(connection, made, now)
        except (Refused, DatabaseBusy):
            with suppress(Busy):
                self.store.discard(name)
            raise
        return made

    def concatenate(self, name: str, replica: Replica, parts: Sequence[str], metadata: str, most: int) -> Upload:
        """An upload of the bytes of others, which stay. Nothing is kept when it fails.

        Raises Refused: as `make` and `complete`; `not-found`, `parts-unfinished`, `upload-too-large`."""
        found = self._parts(replica, parts)
        length = sum(part.length for part in found)
        if length > most:
            raise refusal("upload-too-large", f"an upload may have {most} bytes")
        said = "final;" + " ".join(f"{tus.COLLECTION}/{part.id}" for part in found)
        made = self.make(name, replica, length, metadata, said)
        try:
            for part in found:
                made = self._copy(part, made)
            self.complete(replica, made)
        except (Refused, Busy):
            with suppress(Busy):
                self.discard(name)
            raise
        return made

    def take(self, replica: Replica, name: str) -> tuple[Upload, Held]:
        """The upload, and that no other process goes on with it until that is closed. Raises Busy: one has it in hand;
        and as `find`."""
        try:
            held = self.store.hold(name)
        except Busy:
            self.find(replica, name)  # whoever is of another scope does not hear that there is one
            raise
        try:
            return self.find(replica, name), held
        except BaseException:
            held.close()
            raise

    def find(self, replica: Replica, name: str) -> Upload:
        """Raises Refused: `not-found`, `upload-expired`."""
        with self._database.reading() as connection:
            found = uploads.find(connection, replica.scope, name)
        if found is None:
            raise refusal("not-found", "there is no such upload")
        if found.expires_at <= self._clock.now():
            raise refusal("upload-expired", "the upload has expired")
        return self._as_is(found)

    def open(self, upload: Upload, checksum: Checksum | None) -> tuple[Tail, Running | None]:
        """Raises Refused `not-found`, Busy."""
        algorithm = checksum.algorithm if checksum else None
        tail = self.store.append(upload.id, upload.length, upload.position, algorithm)
        return tail, self._hashes.take(upload) if self.store.local else None

    def keep(self, upload: Upload, running: Running | None) -> None:
        """For what comes next, unless it is of other bytes than those that are here."""
        if running is not None and running.position == upload.position:
            self._hashes.keep(upload.id, running)

    def promise(self, upload: Upload, tail: Tail) -> Upload:
        """The bytes so far are promised. Those that end the upload are safe on disk then."""
        if not self._boot or tail.position == upload.length:
            return self.commit(upload, tail)
        return self._advance(upload, tail.position, boot=self._boot)

    def commit(self, upload: Upload, tail: Tail) -> Upload:
        """The bytes so far are safe, and promised."""
        self._sync(upload, tail.sync)
        upload = self._advance(upload, tail.position)
        tail.settle()
        return upload

    def make_safe(self, upload: Upload) -> int:
        """What was promised by now, while more may come; how many bytes of it are safe then."""
        self._sync(upload, partial(self.store.sync, upload.id))
        with self._database.writing() as connection:
            uploads.sync(connection, upload.id, to=upload.position)
        return upload.position

    def complete(self, replica: Replica, upload: Upload) -> None:
        """Every byte is here: check the whole, and enter it. Harmless to repeat, wherever it was cut before.

        replica: who asks. Raises Refused: `replica-revoked`; `content-mismatch`, `media-type-mismatch`: the upload is
        gone then.
        """
        if upload.completed_at is not None or upload.partial:
            return
        told = tus.metadata(upload.metadata)
        checked = self._checked(upload, told)
        with self._database.reading() as connection:
            auth.check_active(connection, replica.id)
        if checked is not None and upload.sha256 is None:  # whoever comes after a crash knows by the row what it was
            with self._database.writing() as connection:
                uploads.name(connection, upload.id, sha256=checked)
        if checked is not None:
            self.store.publish(upload.id, upload.length, upload.scope, checked)
        hashed = checked or self._moved_already(upload)
        with self._database.writing() as connection:
            uploads.complete(connection, upload, _content(upload, hashed, told), self._clock.now())
        with suppress(Busy):  # what is left goes when the upload expires
            self.store.discard(upload.id)

    def discard(self, name: str) -> None:
        """The bytes before the row: what is left of them when this is cut has a name yet, and goes when it expires."""
        self.store.discard(name)
        with self._database.writing() as connection:
            uploads.forget(connection, name)

    def content(self, replica: Replica, hashed: str) -> Content:
        """Raises Refused `not-found`."""
        with self._database.reading() as connection:
            found = uploads.content(connection, replica.scope, hashed)
        if found is None:
            raise refusal("not-found", "there is no such content")
        return found

    def known(self, replica: Replica, hashes: Sequence[str]) -> list[str]:
        """Those of them that the scope has, whole and checked."""
        with self._database.reading() as connection:
            return uploads.known(connection, replica.scope, hashes)

    def _parts(self, replica: Replica, named: Sequence[str]) -> list[Upload]:
        with self._database.reading() as connection:
            known = uploads.find_all(connection, replica.scope, named)
        now = self._clock.now()
        if any(name not in known or known[name].expires_at <= now for name in named):
            raise refusal("not-found", "a part is not here, or has expired")
        known = {name: self._as_is(part) for name, part in known.items()}
        if any(not part.partial or part.position < part.length for part in known.values()):
            raise refusal("parts-unfinished", "a part is not whole, or was not announced as one")
        return [known[name] for name in named]

    def _sync(self, upload: Upload, sync: Callable[[], None]) -> None:
        """A disk that could not write tells so once, and says yes when it is asked again: what was promised and not
        safe by then is no longer here."""
        try:
            sync()
        except (Refused, OSError):
            with self._database.writing() as connection:
                uploads.fall_back(connection, upload.id)
            raise

    def _as_is(self, upload: Upload) -> Upload:
        """As far as the machine has it: after a power cut, no further than it was safe on disk."""
        if upload.boot in ("", self._boot) or upload.completed_at is not None:
            return upload
        with self._database.writing() as connection:
            uploads.fall_back(connection, upload.id, boot=self._boot)
        return replace(upload, position=upload.synced, boot="")

    def _advance(self, upload: Upload, to: int, *, boot: str = "") -> Upload:
        """boot: "" where the bytes are safe on disk."""
        expires_at = self._clock.now() + self._lifetime_ms
        with self._database.writing(lasting=not boot) as connection:
            if not uploads.advance(
                connection, upload.id, since=upload.position, to=to, expires_at=expires_at, boot=boot
            ):
                raise refusal("not-found", "there is no such upload any more")
        synced = upload.synced if boot else to
        return replace(upload, position=to, synced=synced, boot=boot, expires_at=expires_at)

    def _copy(self, part: Upload, made: Upload) -> Upload:
        whole = self.store.whole(part.id, part.length)
        if whole is None:
            raise refusal("not-found", "a part is lost")
        with closing(whole), closing(self.store.append(made.id, made.length, made.position, None)) as tail:
            for block in whole:
                tail.write(block)
                if tail.position - made.position >= COPIED_AT_ONCE:
                    made = self.commit(made, tail)
            return self.commit(made, tail)

    def _check_quota(self, connection: Connection, made: Upload, now: int) -> None:
        """What the scope has already costs it nothing once more."""
        left = self._room.left(connection, made.scope, now)
        if left is None:
            return
        known = uploads.content(connection, made.scope, made.sha256) if made.sha256 else None
        if (known is None or known.size != made.length) and made.length > left:
            raise self._room.exceeded()

    def _checked(self, upload: Upload, told: Metadata) -> str | None:
        """The SHA-256 of all of it, which is what was promised; None when its bytes are not where uploads are."""
        running = self._hashes.take(upload) if upload.length else None
        found = running.found() if running is not None else self._hashed(upload)
        if found is None:
            return None
        hashed, start = found
        try:
            if upload.sha256 and not hmac.compare_digest(hashed, upload.sha256):
                raise refusal("content-mismatch", f"the content has the SHA-256 {hashed}")
            self._policy.check_bytes(told.media_type, start)
        except Refused:
            self.discard(upload.id)
            raise
        return hashed

    def _hashed(self, upload: Upload) -> tuple[str, bytes] | None:
        """The SHA-256 of all of it, and its first bytes."""
        whole = self.store.whole(upload.id, upload.length)
        if whole is None:
            return None
        hashed, read, start = sha256(), 0, b""
        with closing(whole):
            for block in whole:
                start = start or block[:MOST_NEEDED]
                hashed.update(block)
                read += len(block)
        return (hashed.hexdigest(), start) if read == upload.length else None

    def _moved_already(self, upload: Upload) -> str:
        """The hash of an upload whose file has gone to its place, but whose row does not say so yet."""
        if upload.sha256 and self.store.size(upload.scope, upload.sha256) == upload.length:
            return upload.sha256
        self.discard(upload.id)
        raise refusal("not-found", "the upload was lost; send it again")


def _content(upload: Upload, hashed: str, told: Metadata) -> Content:
    return Content(sha256=hashed, size=upload.length, name=told.name, media_type=told.media_type)
