"""The journey of `put`: look at the file, name its content, write the upload and its work in one transaction."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Connection

from backhaul.database import Database
from backhaul.errors import Misused
from backhaul.media import uploads
from backhaul.media.content import Unreadable, opened, outside, sha256
from backhaul.media.uploads import Upload

ANYTHING = "application/octet-stream"

Enqueue = Callable[[Connection, Upload], None]


def put(database: Database, path: str | Path, *, enqueue: Enqueue, now: int) -> Upload:
    """Register a file for upload. The file must stay as it is and where it is until the upload is done.

    enqueue: writes the work of this upload, whose id is the upload's, in the transaction it is given.
    Raises Misused for what is no readable file, and whatever `enqueue` raises; nothing is registered then.
    """
    upload = examine(Path(path).absolute(), now=now)
    with database.writing() as connection:
        uploads.register(connection, upload)
        enqueue(connection, upload)
    return upload


def examine(path: Path, *, now: int) -> Upload:
    """The upload of a file, not registered yet. The whole file is read. Raises Misused."""
    _check_name(path)
    try:
        with opened(path) as file:
            before = outside(file)
            content = sha256(file)
            after = outside(file)
    except Unreadable as error:
        raise Misused(str(error), hint="name a file that this user may read") from error
    if before != after:
        raise Misused(f"{path} was written to while it was read", hint="put it when it is complete")
    return Upload(
        id=uuid4().hex,
        path=str(path),
        name=path.name,
        media_type=mimetypes.guess_type(path.name)[0] or ANYTHING,
        size=after.size,
        sha256=content,
        modified_ns=after.modified_ns,
        created_at=now,
    )


def _check_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise Misused(f"{str(path)!r} is not UTF-8 and cannot be kept as text", hint="rename the file") from error
