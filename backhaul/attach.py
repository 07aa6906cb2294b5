"""The journey of the files that rows name: look at each, keep it, and have its row say what it holds.

    look    what was named, and what was not what it had been; the app is long gone on
    keep    hashed and copied outside of any transaction
    settle  the kept content, its upload, its work, what the row says of it, and that it is put: one transaction

Where it may be cut: before the settling nothing is there but a file in `incoming`, which `tidy` takes away; after it
all is. A file that cannot be read holds up nothing else: it is looked at again, and says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from backhaul.backoff import Backoff
from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import DatabaseBusy, Misused
from backhaul.media import images, uploads
from backhaul.media.content import Unreadable, opened
from backhaul.media.put import put
from backhaul.media.store import Store
from backhaul.media.uploads import Upload
from backhaul.replica import attachments, rows, tables
from backhaul.replica.attachments import Attachment
from backhaul.replica.media_columns import MediaColumn
from backhaul.replica.misfit import Misfit
from backhaul.replica.tables import Tracked
from backhaul.replica.telling import tell
from backhaul.telemetry import emit
from backhaul.transforms import TransformFailed, transform

AT_ONCE = 100
MOST_TRIES = 3  # of a transform, before the file goes as it is
CUT = "its transform was cut off"
AGAIN = Backoff(initial_ms=10_000, most_ms=15 * 60_000)
OURS = ".backhaul"  # beside the app's files, and nobody's to send


class Context(Protocol):
    """What a run gives its journey."""

    def check(self) -> None:
        """Raises Stopped when the work is to stop."""

    def progress(self, progress: dict[str, Any], /) -> None: ...


@dataclass(kw_only=True)
class Attached:
    """put: files that are on their way now. postponed: that could not be read. forgotten: that no row names any
    more."""

    put: int = 0
    postponed: int = 0
    forgotten: int = 0


class Enqueue(Protocol):
    """later: it is not what others wait for."""

    def __call__(self, connection: Connection, upload: Upload, /, *, later: bool = False) -> None: ...


class _NamedNoMore(Exception):
    """The row has gone on while its file was read."""


def attach(
    database: Database,
    *,
    home: Path,
    store: Store,
    keep: bool = True,
    enqueue: Enqueue,
    clock: Clock,
    context: Context,
    transforming: bool = False,
) -> Attached:
    """Put every file that waits for it. home: the replica's folder. store: of kept contents. keep: False: files are
    sent from where they are. enqueue: writes the work of an upload, in the transaction it is given. transforming: those
    of which something is made first; else those of which nothing is.

    Raises Stopped, StorageFull, DatabaseBusy, WorkUnplaceable: what was put stays so, and the same call goes on.
    """
    run, done = Run(database, home, store, keep, enqueue, clock), Attached()
    with database.writing() as connection:
        spoilt = attachments.again(connection, clock.now())
        uploads.forget_parked(connection, *spoilt)
    after = 0
    while True:
        with database.reading() as connection:
            tracked = {one.table.name: one for one in tables.all_tracked(connection)}
            made = [name for name, one in tracked.items() if one.media is not None and one.media.transform]
            which: dict[str, Any] = {"of": made} if transforming else {"but": made}
            due = attachments.due(connection, clock.now(), after=after, most=AT_ONCE, **which)
        if not due:
            return done
        for one in due:
            context.check()
            _look_at(run, tracked.get(one.table), one, done)
            after = one.id
            context.progress({"put": done.put, "postponed": done.postponed})


@dataclass(frozen=True)
class Run:
    database: Database
    home: Path
    store: Store
    keep: bool
    enqueue: Enqueue
    clock: Clock


def _look_at(run: Run, of: Tracked | None, one: Attachment, done: Attached) -> None:
    try:
        if of is None or of.media is None:
            raise _NamedNoMore
        _put(run, of, of.media, one)
    except _NamedNoMore:
        with run.database.writing() as connection:
            attachments.forget(connection, one.id, key=one.key)
        done.forgotten += 1
    except DatabaseBusy as error:
        if run.database.sqlite:
            raise
        _postpone(run, one, str(error))  # the app is writing that row; the others need not wait for it
        done.postponed += 1
    except (Misused, Unreadable, Misfit, DBAPIError) as error:
        reason = rows.refusal(error) if isinstance(error, DBAPIError) else str(error)
        if reason is None:
            raise
        _postpone(run, one, reason)
        emit("media.unread", table=one.table, tries=one.tries + 1)
        done.postponed += 1
    else:
        done.put += 1


def _put(run: Run, of: Tracked, media: MediaColumn, one: Attachment) -> None:
    path = file_of(run.home, media, one.path)
    if not media.transform:
        return _put_this(run, of, one, path)
    if one.reason == CUT and one.tries >= MOST_TRIES and media.on_failure == "original":
        return _put_this(run, of, one, path, reason=one.reason)
    with opened(path):
        pass  # it is there, and can be read: what goes wrong from here on is the transform's
    _postpone(run, one, CUT)  # should this process die of the file, the next run goes on with others
    with TemporaryDirectory(prefix="backhaul-") as folder:
        target = Path(folder) / "made"
        try:
            called = transform(media, path, target)
        except TransformFailed as failure:
            emit("media.not_transformed", table=one.table, then=media.on_failure)
            if media.on_failure == "wait":
                raise Misused(str(failure), hint="put right what is wrong; it is tried again") from failure
            return _put_this(run, of, one, path, reason=str(failure))
        if media.original == "later":
            _put_original(run, of, one, path)
        return _put_this(run, of, one, target, called=called)


def _put_this(
    run: Run, of: Tracked, one: Attachment, path: Path, *, called: str = "", reason: str | None = None
) -> None:
    """called: of what was made of the file."""
    assert of.media is not None
    told: dict[str, str | int | None] = {"orientation": images.orientation(path)} if of.media.orientation else {}

    def settle(connection: Connection, upload: Upload) -> None:
        if not tell(connection, of, one, _known(upload) | told):
            raise _NamedNoMore
        if not attachments.put(connection, one.id, upload_id=upload.id, sha256=upload.sha256, reason=reason):
            raise _NamedNoMore
        run.enqueue(connection, upload)

    store = run.store if run.keep or called else None
    put(run.database, path, store=store, enqueue=settle, now=run.clock.now(), called=called)


def _put_original(run: Run, of: Tracked, one: Attachment, path: Path) -> None:
    """Before what was made of it: after a death in between both are put, once more."""

    def settle(connection: Connection, upload: Upload) -> None:
        if not tell(connection, of, one, {"original_sha256": upload.sha256}):
            raise _NamedNoMore
        run.enqueue(connection, upload, later=True)

    put(run.database, path, store=run.store if run.keep else None, enqueue=settle, now=run.clock.now())


def _known(upload: Upload) -> dict[str, str | int | None]:
    return {"sha256": upload.sha256, "size": upload.size, "type": upload.media_type, "name": upload.name}


def file_of(home: Path, media: MediaColumn, path: str) -> Path:
    """The file that a path of a row stands for. Raises Misused for what is not in the folder of the table's files: a
    name that comes from elsewhere must not have any file of this machine sent."""
    try:
        folder = (home / media.folder).resolve()
        found = (folder / path).resolve()
        ours = (home / OURS).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise Misused(f"{path!r} is no path: {error}", hint="name a file that this user may read") from error
    if not found.is_relative_to(folder) or found.is_relative_to(ours):
        raise Misused(f"{path!r} is not in the folder {folder}", hint="move the file, or name another `folder`")
    return found


def _postpone(run: Run, one: Attachment, reason: str) -> None:
    now = run.clock.now()
    with run.database.writing() as connection:
        attachments.postpone(connection, one.id, reason=reason, next_at=now + AGAIN.delay_ms(one.tries + 1))
