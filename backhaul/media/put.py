"""The journey of `put`: look at the file, name its content, keep it, write upload and work in one transaction."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256 as new_sha256
from io import FileIO
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Connection

from backhaul.database import Database
from backhaul.errors import Misused
from backhaul.media import contents, uploads
from backhaul.media.content import Outside, Unreadable, opened, outside, sha256
from backhaul.media.store import KEPT_NS, Incoming, Store, write
from backhaul.media.uploads import Upload

ANYTHING = "application/octet-stream"
UNNAMED = "content"
LONGEST_NAME = 255

Enqueue = Callable[[Connection, Upload], None]


def put(
    database: Database,
    path: str | Path,
    *,
    enqueue: Enqueue,
    now: int,
    store: Store | None = None,
    priority: int = 0,
    called: str = "",
) -> Upload:
    """Register a file for upload. store: where it is kept as it is now; without one, the file must stay as it is and
    where it is until the upload is done. priority: higher is sent earlier. called: of a kept file that goes afterwards:
    the name that it is known by.

    enqueue: writes the work of this upload, whose id is the upload's, in the transaction it is given.
    Raises Misused for what is no readable file, StorageFull, and whatever `enqueue` raises; nothing is registered then.
    """
    found = Path(path).absolute()
    _check_name(found)
    if store is None:
        upload = replace(_upload(found, *_examined(found, sha256), now=now), priority=priority)
        with database.writing() as connection:
            uploads.register(connection, upload)
            enqueue(connection, upload)
        return upload
    with store.incoming() as incoming:
        content, looked = _examined(found, lambda file: store.fill(incoming, file))
        upload = _upload(Path(called) if called else found, content, looked, now=now)
        path = "" if called else str(found)
        upload = replace(upload, kept=True, modified_ns=KEPT_NS, path=path, priority=priority)
        _keep(database, store, incoming, upload, enqueue)
    return upload


def put_bytes(
    database: Database,
    store: Store,
    content: bytes,
    *,
    name: str = "",
    enqueue: Enqueue,
    now: int,
    priority: int = 0,
) -> Upload:
    """Register bytes for upload. name: for people, and for the media type. Raises as `put`."""
    named = Path(name).name
    if named in ("", ".."):
        named = UNNAMED
    _check_name(Path(named))
    with store.incoming() as incoming:
        with store.writing():
            write(incoming.file, memoryview(content))
        looked = Outside(size=len(content), modified_ns=KEPT_NS)
        upload = _upload(Path(named), new_sha256(content).hexdigest(), looked, now=now)
        upload = replace(upload, kept=True, path="", priority=priority)
        _keep(database, store, incoming, upload, enqueue)
    return upload


def put_kept(database: Database, store: Store, old: Upload, *, enqueue: Enqueue, now: int) -> Upload:
    """Register for upload, under a new id, what is kept of an old one. Raises Misused when it is not kept any more."""
    upload = replace(_again(old), id=uuid4().hex, created_at=now)
    with store.arriving(), database.writing() as connection:
        if contents.get(connection, old.sha256) is None:
            raise Misused(f"what was kept of {old.name} is gone", hint="put it again")
        uploads.register(connection, upload)
        enqueue(connection, upload)
    return upload


def _keep(database: Database, store: Store, incoming: Incoming, upload: Upload, enqueue: Enqueue) -> None:
    """Admitted last: whatever is refused before has left no file."""
    store.seal(incoming)
    with store.arriving(), database.writing() as connection:
        contents.keep(connection, upload.sha256, size=upload.size, now=upload.created_at)
        uploads.register(connection, upload)
        enqueue(connection, upload)
        store.admit(incoming, upload.sha256)


def _examined(path: Path, read: Callable[[FileIO], str]) -> tuple[str, Outside]:
    """What `read` says of the file, and how it looks from outside; it must not change meanwhile."""
    with _misused(), opened(path) as file:
        before = outside(file)
        content = read(file)
        after = outside(file)
    if before != after:
        raise Misused(f"{path} was written to while it was read", hint="put it when it is complete")
    return content, after


def _upload(path: Path, content: str, looked: Outside, *, now: int) -> Upload:
    return Upload(
        id=uuid4().hex,
        path=str(path),
        name=path.name,
        media_type=mimetypes.guess_type(path.name)[0] or ANYTHING,
        size=looked.size,
        sha256=content,
        modified_ns=looked.modified_ns,
        created_at=now,
    )


def _again(old: Upload) -> Upload:
    return replace(
        old, state="pending", url=None, sent=0, queue=None, worker=None, reason=None, finished_at=None, asked_at=None
    )


@contextmanager
def _misused() -> Iterator[None]:
    try:
        yield
    except Unreadable as error:
        raise Misused(str(error), hint="name a file that this user may read") from error


def _check_name(path: Path) -> None:
    """What every database and every server can keep as the name of a file. The path is opened by itself."""
    if "\0" in path.name or len(path.name) > LONGEST_NAME:
        raise Misused(
            f"{path.name[:50]!r} is no name of a file", hint=f"give it up to {LONGEST_NAME} characters, and no NUL"
        )
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise Misused(f"{str(path)!r} is not UTF-8 and cannot be kept as text", hint="rename the file") from error
