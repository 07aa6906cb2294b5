"""`Backhaul.media`: files that belong to the records, on their way out and in."""

from __future__ import annotations

import builtins
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from io import BufferedReader
from pathlib import Path

from sqlalchemy import Connection

from backhaul.bell import Bell, Queue
from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import MediaNotHere, Misused
from backhaul.media import cache, contents, downloads, put, reading, uploads
from backhaul.media.cache import Evicted, Limits
from backhaul.media.contents import Kept
from backhaul.media.fetch import NOT_THERE
from backhaul.media.store import Store
from backhaul.media.tidy import Untidy, tidy
from backhaul.media.uploads import Upload
from backhaul.replica import attachments
from backhaul.replica.attachments import Attachment
from backhaul.work import ledger
from backhaul.work.in_force import in_force
from backhaul.work.ledger import Work
from backhaul.work.placing import judge, place
from backhaul.work.request import WorkRequest
from backhaul.work.row import FINISHED

UPLOAD, DOWNLOAD = "backhaul.upload", "backhaul.download"
HASH = re.compile(r"[0-9a-f]{64}")


class Media:
    """Files that belong to the records, each uploaded as work of its own."""

    def __init__(self, database: Database, bell: Bell, clock: Clock) -> None:
        self._database = database
        self._bell = bell
        self._clock = clock

    def put(self, file: str | Path | bytes, *, name: str = "", keep: bool | None = None, priority: int = 0) -> Upload:
        """Upload a file, or bytes, in the background, when their constraints hold.

        keep: whether the file is kept as it is now, in the replica's folder, and may be edited, moved or deleted at
        once; else it is sent from where it is, and must stay there as it is. None: as `[media] keep` says. Bytes are
        always kept. name: of bytes, for people and for the media type. priority: higher is sent earlier.
        Raises Misused, StorageFull, WorkUnplaceable.
        """
        now = self._clock.now()
        if isinstance(file, bytes):
            putting = partial(put.put_bytes, self._database, self._store, file, name=name)
        else:
            kept = self._bell.media.keep if keep is None else keep
            putting = partial(put.put, self._database, file, store=self._store if kept else None)
        return self._rung(partial(putting, now=now, priority=priority))

    def retry(self, upload_id: str) -> Upload:
        """Put the file of a parked upload once more, as it is now, under a new id; what is kept of it where there is no
        such file any more, or bytes were put. So, too, of one whose work was cancelled or has failed: nothing else
        sends it. Raises Unknown, Misused, StorageFull."""
        with self._database.reading() as connection:
            old, work = uploads.get(connection, upload_id), ledger.get(connection, upload_id)
        given_up = old.state in uploads.OPEN and (work is None or work.state in FINISHED)
        if old.state != "parked" and not given_up:
            raise Misused(f"the upload {upload_id} is {old.state}, not parked", hint="backhaul media list")
        gone = not old.path or (old.kept and not old.file.exists())
        made = self._put_kept(old) if gone else self.put(old.path, keep=old.kept, priority=old.priority)
        with self._database.writing() as connection:
            uploads.park(connection, upload_id, reason="put once more", now=self._clock.now())
            uploads.forget_parked(connection, upload_id)
        return made

    def pin(self, sha256: str, *, pinned: bool = True) -> None:
        """It stays here, whatever the budget; or may go again. Raises MediaNotHere."""
        _check_hash(sha256)
        with self._database.writing() as connection:
            found = contents.pin(connection, sha256, pinned=pinned)
        if not found:
            hint = f"backhaul media fetch {sha256}"
            raise MediaNotHere(f"{sha256} is not here", why="not-fetched", hint=hint)

    def kept(self) -> Kept:
        """How much is kept here."""
        with self._database.reading() as connection:
            return contents.kept(connection)

    def evict(self, *, everything: bool = False) -> Evicted:
        """Let go what is over the budget of the cache, or all that can go; Beat does the former once a minute."""
        rules = self._bell.media
        limits = Limits(most=0 if everything else rules.cache, floor=rules.floor)
        return cache.evict(self._database, self._store, limits)

    def tidy(self) -> Untidy:
        """Take away what deaths have left between the kept files and their rows; Beat does so once an hour."""
        return tidy(self._database, self._store)

    def _put_kept(self, old: Upload) -> Upload:
        return self._rung(partial(put.put_kept, self._database, self._store, old, now=self._clock.now()))

    def _rung(self, put_with: Callable[..., Upload]) -> Upload:
        """Put, with its work, and ring for that."""
        enqueued: builtins.list[Work] = []

        def enqueue(connection: Connection, upload: Upload) -> None:
            requires, queues = self._bell.upload_requires, self._bell.queues
            enqueued.append(enqueue_upload(connection, upload, queues, requires=requires, now=self._clock.now()))

        upload = put_with(enqueue=enqueue)
        self._bell.ring(enqueued[0].ring)
        return upload

    @property
    def _store(self) -> Store:
        folder = self._bell.media.folder
        if folder is None:
            raise Misused("no folder is known here to keep files in", hint="pip install backhaul; or put a path")
        return Store(folder)

    def open(self, sha256: str, *, fetch: bool = True) -> BufferedReader:
        """A content, to be read from its beginning: bytes that were checked by their hash, or none.

        What is not here is asked for, as work of its own on its queue (and comes when the conditions of that hold);
        the same call later finds it here. fetch: whether it is. Raises MediaNotHere, which says why; Misused,
        WorkUnplaceable.
        """
        _check_hash(sha256)
        found = reading.opened_here(self._database, self._store, sha256, now=self._clock.now())
        if found is not None:
            return found
        with self._database.reading() as connection:
            known = downloads.get(connection, sha256)
        if known is not None and known.state == "parked":
            hint = f"backhaul media fetch {sha256} tries again"
            raise MediaNotHere(f"{sha256} is not here: {known.reason}", why="refused", hint=hint)
        if not fetch:
            raise MediaNotHere(f"{sha256} is not here", why="not-fetched", hint="open(sha256) fetches it")
        raise self._not_here(sha256, self.fetch(sha256))

    def fetch(self, sha256: str) -> Work:
        """Have a content come here in the background; also one that was refused. Returns the work that brings it, which
        is made unless it is on its way already. Raises Misused, WorkUnplaceable."""
        _check_hash(sha256)
        requires, now = self._bell.media.download_requires, self._clock.now()
        request = WorkRequest(task=DOWNLOAD, name=f"download:{sha256}", requires=requires, input={"sha256": sha256})
        queue = place(self._bell.queues, request.requires, request.kind)
        with self._database.writing() as connection:
            downloads.ask(connection, sha256, now=now)
            work = ledger.enqueue_unique(connection, request, queue=queue.name, policy="keep", now=now)
        self._bell.ring(work.ring)
        return work

    def _not_here(self, sha256: str, work: Work) -> MediaNotHere:
        with self._database.reading() as connection:
            known = downloads.get(connection, sha256)
            held, labels = in_force(connection, self._clock.now(), self._bell.node, os.environ)
        tags = next((queue.tags for queue in self._bell.queues if queue.name == work.queue), frozenset[str]())
        verdict = judge(tags.union(work.requires), held, labels)
        hint = f"backhaul why {work.id}"
        if known is not None and known.reason == NOT_THERE and not known.received:
            said, why = f"{NOT_THERE}, yet", "not-on-server"
        elif not verdict.open:
            said, why = verdict.reason, "budget" if "budget" in verdict.closed else "constraint"
        else:
            said, why = f"it is on its way, {known.received if known else 0} bytes are here", "waiting"
        return MediaNotHere(f"{sha256} is not here: {said}", why=why, hint=hint)

    def list(self) -> builtins.list[Upload]:
        """The newest first."""
        with self._database.reading() as connection:
            return uploads.listed(connection)

    def unread(self) -> builtins.list[Attachment]:
        """The files that rows name and that are not put yet, the newest first."""
        with self._database.reading() as connection:
            return attachments.listed(connection)


def enqueue_upload(
    connection: Connection,
    upload: Upload,
    queues: Sequence[Queue],
    *,
    requires: frozenset[str],
    now: int,
    delay_ms: int = 0,
) -> Work:
    """The work of this upload, whose id is the upload's. Raises WorkUnplaceable."""
    request = WorkRequest(task=UPLOAD, id=upload.id, requires=requires, initial_delay_ms=delay_ms)
    queue = place(queues, request.requires, request.kind)
    return ledger.enqueue(connection, request, queue=queue.name, now=now)


def _check_hash(sha256: str) -> None:
    if not HASH.fullmatch(sha256):
        raise Misused(f"{sha256!r} is no SHA-256", hint="64 lower-case hexadecimal digits, as `put` returns them")
