"""Deaths and meetings at the steps between which nothing guards the files: what is kept, what comes, what goes."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG
from typing import Any

import pytest

from backhaul.clock import Clock
from backhaul.database import Database, sqlite_file
from backhaul.errors import Busy, Refused, Unreachable
from backhaul.media import contents, downloads, fetch, reading
from backhaul.media.fetch import download
from backhaul.media.put import put, put_bytes
from backhaul.media.reading import opened_here
from backhaul.media.store import PART, Incoming, Store
from backhaul.media.tidy import look, tidy
from backhaul.media.transfer import upload
from backhaul.remotes.memory_media import MemoryMediaRemote
from tests.unit.media.conftest import NOW, Run, no_work

CONTENT = bytes(range(256)) * 5
HASH = sha256(CONTENT).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "media")


@pytest.fixture
def bring(database: Database, remote: MemoryMediaRemote, clock: Clock, store: Store) -> Callable[[], dict[str, Any]]:
    remote.whole[HASH] = CONTENT
    with database.writing() as connection:
        downloads.ask(connection, HASH, now=NOW)
    return lambda: download(database, remote, HASH, clock=clock, context=Run(), store=store, chunk_bytes=1_000)


class Killed(BaseException):
    """The process is gone: nothing in it may catch this."""


def die(*_given: Any, **_named: Any) -> None:
    raise Killed


def read(database: Database, store: Store) -> bytes | None:
    file = opened_here(database, store, HASH, now=NOW)
    if file is None:
        return None
    with file:
        return file.read()


def test_while_a_large_file_is_made_safe_others_may_write(
    database: Database, store: Store, bring: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may need seconds for that: the app must not wait for its own commits meanwhile."""
    synced: list[int] = []
    sync = os.fsync

    def watched(handle: int) -> None:
        if S_ISREG(os.fstat(handle).st_mode):
            with closing(sqlite3.connect(str(sqlite_file(database.engine.url)), timeout=0)) as app:
                app.execute("BEGIN IMMEDIATE")
            synced.append(os.fstat(handle).st_size)
        sync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    put_bytes(database, store, b"of ours", enqueue=no_work, now=NOW)
    bring()
    assert synced == [7, len(CONTENT)]


@pytest.mark.parametrize("step", ["_check", "_admit"])
def test_a_download_that_dies_after_its_last_byte_is_not_fetched_again(
    database: Database, store: Store, remote: MemoryMediaRemote, bring: Callable[[], Any], step: str
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fetch, step, die)
        with pytest.raises(Killed):
            bring()
    assert read(database, store) is None
    assert bring() == {"sha256": HASH, "size": len(CONTENT), "received": 0}
    assert read(database, store) == CONTENT
    assert remote.fetched == len(CONTENT)


def test_a_download_that_dies_before_it_has_noted_how_large_the_content_is_goes_on(
    database: Database, store: Store, remote: MemoryMediaRemote, clock: Clock, bring: Callable[[], Any]
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(downloads, "advance", die)
        with pytest.raises(Killed):
            download(database, remote, HASH, clock=clock, context=Run(), store=store, chunk_bytes=10_000)
    assert bring()["received"] == 0
    assert read(database, store) == CONTENT


def test_more_than_the_content_has_is_begun_anew_once(
    database: Database, store: Store, bring: Callable[[], Any]
) -> None:
    with store.part(HASH) as part:
        part.file.write(CONTENT + b"of another")
    with pytest.raises(Unreachable):
        bring()
    bring()
    assert read(database, store) == CONTENT


def test_a_part_that_was_admitted_between_its_opening_and_its_lock_is_not_written_to(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.folder / "incoming").mkdir(parents=True)
    path = store.folder / "incoming" / f"{HASH}{PART}"
    path.write_bytes(CONTENT)
    opened = os.open

    def overtaken(file: Any, *given: Any, **named: Any) -> int:
        handle = opened(file, *given, **named)
        if file == path:
            store.path(HASH).parent.mkdir()
            path.rename(store.path(HASH))
        return handle

    monkeypatch.setattr(os, "open", overtaken)
    with pytest.raises(Busy), store.part(HASH):
        raise AssertionError("it has the content that everybody sees")
    assert store.path(HASH).read_bytes() == CONTENT


def test_a_part_is_locked_before_anyone_may_take_it_for_left(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a download opens its part, `tidy` has to wait."""
    alone: list[bool] = []
    arriving = store.arriving

    @contextmanager
    def watched() -> Iterator[None]:
        with arriving():
            yield
            with store.alone() as nobody:
                alone.append(nobody)
            (left,) = (store.folder / "incoming").iterdir()
            assert store.leftovers() == [], f"{left.name} is not locked yet"

    monkeypatch.setattr(store, "arriving", watched)
    with store.part(HASH):
        assert alone == [False]


def test_a_content_that_is_put_again_while_its_spoilt_file_is_looked_at_stays(
    database: Database, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(CONTENT)
    put(database, photo, enqueue=no_work, now=NOW, store=store)
    store.path(HASH).chmod(0o600)
    store.path(HASH).write_bytes(b"x" * len(CONTENT))

    def seen_and_put_again(*_given: Any) -> bool:
        put(database, photo, enqueue=no_work, now=NOW, store=store)
        return False

    with monkeypatch.context() as patched:
        patched.setattr(reading, "_is_whole", seen_and_put_again)
        assert read(database, store) is None
    assert tidy(database, store).number == 0
    assert read(database, store) == CONTENT


def test_a_spoilt_content_leaves_neither_row_nor_file(database: Database, store: Store) -> None:
    put_bytes(database, store, CONTENT, enqueue=no_work, now=NOW)
    store.path(HASH).chmod(0o600)
    store.path(HASH).write_bytes(b"x" * len(CONTENT))
    with store.arriving():
        assert read(database, store) is None  # somebody is writing: it is left for later, and not read either
    assert read(database, store) is None
    with database.reading() as connection:
        assert contents.get(connection, HASH) is None
    assert look(database, store).number == 0


@pytest.mark.parametrize("step", ["seal", "admit"])
def test_a_put_that_dies_leaves_what_is_tidied_away(database: Database, store: Store, step: str) -> None:
    """A killed process runs none of its `finally`s: the file is left where it was."""
    real: Callable[..., None] = getattr(Store, step)

    def die_after(self: Store, incoming: Incoming, *given: Any) -> None:
        real(self, incoming, *given)
        if incoming.path.exists():
            os.link(incoming.path, incoming.path.with_name("left"))
        raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Store, step, die_after)
        with pytest.raises(Killed):
            put_bytes(database, store, CONTENT, enqueue=no_work, now=NOW)
    assert read(database, store) is None
    assert tidy(database, store).number == 1
    assert look(database, store).number == 0
    put_bytes(database, store, CONTENT, enqueue=no_work, now=NOW)
    assert read(database, store) == CONTENT


def test_a_download_that_the_server_refuses_keeps_its_reason(
    database: Database, store: Store, clock: Clock, bring: Callable[[], Any]
) -> None:
    class Forbidding(MemoryMediaRemote):
        def fetch(self, sha256: str, at: int, most: int) -> Any:
            raise Refused("not for you", problem="forbidden", status=403)

    with pytest.raises(Refused):
        download(database, Forbidding(), HASH, clock=clock, context=Run(), store=store)
    with database.reading() as connection:
        known = downloads.get(connection, HASH)
    assert known is not None
    assert (known.state, known.reason) == ("parked", "forbidden: not for you")


def test_what_an_upload_still_needs_is_not_tidied_away_whatever_became_of_its_row(
    database: Database, store: Store, remote: MemoryMediaRemote, clock: Clock
) -> None:
    """As when another machine on the same database, which has another folder, has judged the row."""
    made = put_bytes(database, store, CONTENT, enqueue=no_work, now=NOW)
    elsewhere = Store(store.folder.with_name("elsewhere"))
    put_bytes(database, elsewhere, b"of another machine", enqueue=no_work, now=NOW)
    assert tidy(database, elsewhere).dangling == [HASH]
    assert tidy(database, store).orphans == [HASH]
    assert store.path(HASH).read_bytes() == CONTENT
    with database.reading() as connection:
        known = contents.get(connection, HASH)
    assert known is not None
    assert (known.size, known.on_server) == (len(CONTENT), False)
    upload(database, remote, made.id, clock=clock, context=Run(), store=store)
    assert remote.whole == {HASH: CONTENT}
