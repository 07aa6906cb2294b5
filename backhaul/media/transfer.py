"""The journey of one upload: is the file still the one, what has the server, then chunk after chunk, done.

The server's word on how far an upload is goes before ours, and each step may be done twice: a run that dies anywhere
is taken up by the next one at the byte, and sends one chunk again at the most. Memory: one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import Busy, LinkLimited, MediaMissing, Refused, TimedOut, Unreachable
from backhaul.media import contents, uploads
from backhaul.media.chunks import Chunks
from backhaul.media.content import Unreadable, opened, outside, read_into, sha256
from backhaul.media.store import Store
from backhaul.media.uploads import Upload
from backhaul.remotes.answers import TOO_LARGE
from backhaul.remotes.base import MediaRemote

CHUNK_BYTES = 4 * 2**20
CONTENT_MISMATCH = "content-mismatch"
FORGOTTEN = (404, 410)


class Context(Protocol):
    """What the run of a piece of work gives it."""

    def check(self) -> None:
        """Raises Stopped when the work shall stop."""

    def progress(self, progress: dict[str, Any], /) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """One run: with what, for whom, and who runs it. most_bytes: of a file that the link may carry, as it is now; None:
    any."""

    database: Database
    remote: MediaRemote
    clock: Clock
    context: Context
    chunk_bytes: int
    queue: str | None
    worker: str | None
    store: Store | None
    most_bytes: Callable[[], int | None] = lambda: None

    def file_of(self, this: Upload) -> Path:
        """Where the bytes are. Raises Unreadable."""
        if not this.kept:
            return this.file
        if self.store is None:
            raise Unreadable(f"{this.name} is kept in a folder that is not known here")
        return self.store.path(this.sha256)


def upload(
    database: Database,
    remote: MediaRemote,
    upload_id: str,
    *,
    clock: Clock,
    context: Context,
    chunk_bytes: int = CHUNK_BYTES,
    queue: str | None = None,
    worker: str | None = None,
    store: Store | None = None,
) -> dict[str, Any]:
    """Send a registered file, from where the server has it. Returns {"sha256", "size", "sent": bytes of this run}.

    store: of kept contents.

    Raises Unknown; MediaMissing (parked: the file is gone or another one) and Refused (parked, with the problem's
    name); Unreachable, Busy, SignInRequired, Stopped: nothing is lost, the same call goes on at the byte.
    """
    run = Transfer(
        database=database,
        remote=remote,
        clock=clock,
        context=context,
        chunk_bytes=chunk_bytes,
        queue=queue,
        worker=worker,
        store=store,
    )
    return send(run, upload_id)


def send(run: Transfer, upload_id: str) -> dict[str, Any]:
    """The same, of a run that is there already."""
    this = take(run, upload_id)
    if this.state == "done":
        return outcome(this, sent=0)
    with _parking(run, this), opened(run.file_of(this)) as file:
        _check_unchanged(run, this, file)
        if run.remote.has(this.sha256):
            return _finished(run, this, sent=0)
        check_link(run, this)
        address, at = _resume(run, this)
        with _healing(run, this, address, file):
            sent = _send(run, this, address, file, at)
    return _finished(run, this, sent=sent)


def take(run: Transfer, upload_id: str) -> Upload:
    """It is this run's from now on. Raises Unknown; Refused when it is parked."""
    with run.database.reading() as connection:
        this = uploads.get(connection, upload_id)
    if this.state == "parked":
        raise Refused(f"the upload of {this.path or this.name} is parked: {this.reason}", hint="put the file again")
    with run.database.writing() as connection:
        uploads.take(connection, upload_id)
        return uploads.get(connection, upload_id)


def _check_unchanged(run: Transfer, this: Upload, file: FileIO) -> None:
    """A file that was only touched is the same file."""
    found = outside(file)
    if (found.size, found.modified_ns) == (this.size, this.modified_ns):
        return
    if found.size != this.size or sha256(file) != this.sha256:
        raise _changed(this)
    with run.database.writing() as connection:
        uploads.confirm(connection, this.id, modified_ns=found.modified_ns)


def _resume(run: Transfer, this: Upload) -> tuple[str, int]:
    """Where to send, and from which byte on: the server knows."""
    if this.url is not None:
        at = run.remote.sent(this.url)
        if at is not None and at <= this.size:
            return this.url, at
        _restart(run, this, this.url, "the server has forgotten the first bytes")
    address = run.remote.create(size=this.size, sha256=this.sha256, name=this.name, media_type=this.media_type)
    with run.database.writing() as connection:
        _check_held(this, uploads.begin(connection, this.id, url=address, fence=this.fence))
    return address, 0


def _send(run: Transfer, this: Upload, address: str, file: FileIO, at: int) -> int:
    """Every chunk from this byte on; how many bytes that were."""
    room = memoryview(bytearray(min(run.chunk_bytes, this.size - at)))
    sent, chunks = 0, Chunks(run.database, most=run.chunk_bytes)
    while at < this.size:
        run.context.check()
        check_link(run, this)
        with run.database.reading() as connection:
            _check_held(this, uploads.holds(connection, this.id, fence=this.fence))
        chunk, began = _chunk(this, file, at, room[: chunks.size]), run.clock.now()
        try:
            at = _append(run, address, at, chunk)
        except TimedOut as error:
            chunks.halve(len(chunk), error, now=began)
            raise
        except Refused as refusal:
            if not is_too_large(refusal) or not chunks.halve(len(chunk), refusal, now=began):
                raise
            continue
        now = run.clock.now()
        sent += len(chunk)
        with run.database.writing(lasting=False) as connection:  # the server knows it better
            held = uploads.advance(
                connection, this.id, url=address, sent=at, queue=run.queue, worker=run.worker, fence=this.fence
            )
            _check_held(this, held)
            chunks.went_through(connection, len(chunk), took_ms=now - began, now=now)
        run.context.progress({"sent": at, "total": this.size})
    if not run.remote.has(this.sha256):
        raise Refused("the server has every byte, but not the content they should be", problem=CONTENT_MISMATCH)
    return sent


def check_link(run: Transfer, this: Upload) -> None:
    """Raises LinkLimited."""
    most = run.most_bytes()
    if most is not None and this.size > most:
        raise LinkLimited(
            f"{this.name} has {this.size} bytes, and the link as it is may carry files of {most}",
            hint="it waits for another link; media.max_bytes says how much each may carry",
        )


def _check_held(this: Upload, held: bool) -> None:
    """A run that was asleep beyond its lease wakes to find that another one sends this file: it leaves it to that."""
    if not held:
        raise Busy(f"another run has taken over the upload of {this.name}")


def is_too_large(refusal: Refused) -> bool:
    """Whether it is the message that was too large, as a proxy on the way may find, and not the file."""
    return refusal.status == TOO_LARGE and refusal.problem != "upload-too-large"


def _chunk(this: Upload, file: FileIO, at: int, room: memoryview) -> memoryview:
    file.seek(at)
    expected = min(len(room), this.size - at)
    if read_into(file, room[:expected]) != expected:
        raise _changed(this)
    return room[:expected]


def _append(run: Transfer, address: str, at: int, chunk: memoryview) -> int:
    """How far the upload is then. When we were wrong about where it stood, the server tells where to go on."""
    try:
        reached = run.remote.append(address, at, chunk)
    except Refused as refusal:
        if refusal.problem != "offset-mismatch":
            raise
        told = run.remote.sent(address)
        if told is None or told == at:
            raise Unreachable("the server contradicts itself about how far the upload is") from refusal
        return told
    if reached != at + len(chunk):
        raise Unreachable(f"the server has {reached} bytes where it was sent {at + len(chunk)}")
    return reached


@contextmanager
def _healing(run: Transfer, this: Upload, address: str, file: FileIO) -> Iterator[None]:
    """What a refusal of bytes means: an upload to begin anew, or a file that is no longer the one."""
    try:
        yield
    except Refused as refusal:
        if refusal.status in FORGOTTEN:
            _restart(run, this, address, "the server has forgotten the first bytes")
            raise Unreachable("the server has forgotten this upload; it begins anew") from refusal
        if refusal.problem != CONTENT_MISMATCH:
            raise
        if sha256(file) != this.sha256:
            raise _changed(this) from refusal
        if this.reason == CONTENT_MISMATCH:
            raise
        _restart(run, this, address, CONTENT_MISMATCH)
        raise Unreachable("the server received other bytes than the file holds; it begins anew, once") from refusal


@contextmanager
def _parking(run: Transfer, this: Upload) -> Iterator[None]:
    """What only a person can mend is parked where a person finds it."""
    try:
        yield
    except Unreadable as error:
        missing = MediaMissing(str(error), hint="bring the file back, and put it again", problem="media-missing")
        _park(run, this, missing)
        raise missing from error
    except Refused as refusal:
        _park(run, this, refusal)
        raise


def _park(run: Transfer, this: Upload, refusal: Refused) -> None:
    with run.database.writing() as connection:
        uploads.park(connection, this.id, reason=f"{refusal.problem}: {refusal}", now=run.clock.now(), fence=this.fence)


def _restart(run: Transfer, this: Upload, url: str, reason: str) -> None:
    with run.database.writing() as connection:
        uploads.restart(connection, this.id, url=url, reason=reason, fence=this.fence)


def _finished(run: Transfer, this: Upload, *, sent: int) -> dict[str, Any]:
    with run.database.writing() as connection:
        uploads.finish(connection, this.id, now=run.clock.now())
        contents.on_server(connection, this.sha256)
    return outcome(this, sent=sent)


def outcome(this: Upload, *, sent: int) -> dict[str, Any]:
    return {"sha256": this.sha256, "size": this.size, "sent": sent}


def _changed(this: Upload) -> MediaMissing:
    return MediaMissing(
        f"{this.path or this.name} is no longer {'what' if this.kept else 'the file that'} was put",
        hint="put it again, as it is now",
        problem="media-changed",
    )
