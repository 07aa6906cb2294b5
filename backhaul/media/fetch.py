"""The journey of one download: what is here of it, range after range, the hash, then seen by all at once.

What has come stays in the store's `incoming` across runs and their deaths; the next run goes on at the byte. Nobody
sees a content before its hash was right. Memory: one range.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import MediaNotHere, Refused, TimedOut, Unreachable
from backhaul.media import contents, downloads
from backhaul.media.chunks import Chunks
from backhaul.media.content import sha256
from backhaul.media.store import Incoming, Store, write
from backhaul.media.transfer import CHUNK_BYTES, CONTENT_MISMATCH, FORGOTTEN, Context
from backhaul.remotes.base import Fetched, MediaRemote

OUT_OF_RANGE = 416
NOT_THERE = "the server does not have it"


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """One run: with what, and for which content."""

    database: Database
    remote: MediaRemote
    clock: Clock
    context: Context
    chunk_bytes: int
    store: Store
    content: str


def download(
    database: Database,
    remote: MediaRemote,
    content: str,
    *,
    clock: Clock,
    context: Context,
    store: Store,
    chunk_bytes: int = CHUNK_BYTES,
) -> dict[str, Any]:
    """Bring a content here, from where it has come to. Returns {"sha256", "size", "received": bytes of this run}.

    content: SHA-256. Raises MediaNotHere (the server does not have it, yet); Refused (parked, with the problem's name);
    StorageFull, Unreachable, Busy, SignInRequired, Stopped: nothing is lost, the same call goes on at the byte.
    """
    run = Fetch(
        database=database,
        remote=remote,
        clock=clock,
        context=context,
        chunk_bytes=chunk_bytes,
        store=store,
        content=content,
    )
    if (size := _here(run)) is not None:
        return {"sha256": content, "size": size, "received": 0}
    with _parking(run), store.part(content) as part:
        size, received = _receive(run, part)
        _check(run, part)
        _admit(run, part, size)
    return {"sha256": content, "size": size, "received": received}


def _here(run: Fetch) -> int | None:
    """Its size, if it is here already: a run that died after the last step is not told that it was."""
    with run.database.reading() as connection:
        known = contents.get(connection, run.content)
    if known is None or not run.store.path(run.content).exists():
        return None
    with run.database.writing() as connection:
        downloads.finish(connection, run.content)
    return known.size


def _receive(run: Fetch, part: Incoming) -> tuple[int, int]:
    """The content's size, and how many bytes of it this run has received."""
    at = part.file.seek(0, os.SEEK_END)
    began_at, chunks = at, Chunks(run.database, most=run.chunk_bytes, direction="download")
    while True:
        run.context.check()
        asked_at = run.clock.now()
        try:
            got = run.remote.fetch(run.content, at, chunks.size)
        except TimedOut as error:
            chunks.halve(chunks.size, error, now=asked_at)
            raise
        except Refused as refusal:
            if refusal.status != OUT_OF_RANGE:
                raise
            return at, at - began_at  # a run that died with its last byte has left the whole, if the hash says so
        _check_progress(got, at)
        with run.store.writing():
            write(part.file, memoryview(got.content))
        at += len(got.content)
        now = run.clock.now()
        with run.database.writing(lasting=False) as connection:
            downloads.advance(connection, run.content, size=got.size, received=at)
            chunks.went_through(connection, len(got.content), took_ms=now - asked_at, now=now)
        run.context.progress({"received": at, "total": got.size})
        if at >= got.size:
            return got.size, at - began_at


def _check_progress(got: Fetched, at: int) -> None:
    if not got.content and at < got.size:
        raise Unreachable("the server has sent an empty range of what it has more of")


def _check(run: Fetch, part: Incoming) -> None:
    """Spoilt bytes are thrown away, once; the second time somebody has to look."""
    if sha256(part.file) == run.content:
        return
    part.file.truncate(0)
    with run.database.writing() as connection:
        known = downloads.get(connection, run.content)
        downloads.restart(connection, run.content, reason=CONTENT_MISMATCH)
    if known is not None and known.reason == CONTENT_MISMATCH:
        raise Refused("the server has sent other bytes than their hash promises, twice", problem=CONTENT_MISMATCH)
    raise Unreachable("other bytes arrived than their hash promises; the download begins anew, once")


def _admit(run: Fetch, part: Incoming, size: int) -> None:
    run.store.seal(part)
    with run.store.arriving(), run.database.writing() as connection:
        contents.keep(connection, run.content, size=size, now=run.clock.now())
        contents.on_server(connection, run.content)
        downloads.finish(connection, run.content)
        run.store.admit(part, run.content)


@contextmanager
def _parking(run: Fetch) -> Iterator[None]:
    """What the server does not have yet may come; what it refuses otherwise is for a person."""
    try:
        yield
    except Refused as refusal:
        if refusal.status in FORGOTTEN:
            with run.database.writing() as connection:
                downloads.note(connection, run.content, reason=NOT_THERE)
            raise MediaNotHere(f"{run.content}: {NOT_THERE}", why="not-on-server") from refusal
        with run.database.writing() as connection:
            downloads.park(connection, run.content, reason=f"{refusal.problem}: {refusal}")
        raise
