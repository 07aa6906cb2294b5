"""The store of kept contents, what is put into it, and what is left when a process dies in between."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import MediaMissing, Misused, StorageFull, WorkUnplaceable
from backhaul.media import contents, uploads
from backhaul.media import store as store_module
from backhaul.media.put import put, put_bytes, put_kept
from backhaul.media.store import PREFIXES, Store
from backhaul.media.tidy import look, tidy
from backhaul.media.transfer import upload
from backhaul.remotes.memory_media import MemoryMediaRemote
from tests.unit.media.conftest import NOW, Run, no_work

CONTENT = bytes(range(256)) * 5_000
HASH = sha256(CONTENT).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "media")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def send(database: Database, remote: MemoryMediaRemote, clock: Clock, store: Store) -> Callable[[str], Any]:
    return lambda upload_id: upload(database, remote, upload_id, clock=clock, context=Run(), store=store)


def kept(database: Database) -> dict[str, int]:
    with database.reading() as connection:
        return {name: size for prefix in PREFIXES for name, size in contents.beginning(connection, prefix).items()}


def files(store: Store) -> dict[str, int]:
    return {name: size for prefix in PREFIXES for name, size in store.contents(prefix).items()}


@pytest.mark.parametrize("fate", ["edited", "replaced", "deleted", "truncated"])
def test_what_is_kept_is_sent_whatever_becomes_of_the_file(
    database: Database, store: Store, photo: Path, remote: MemoryMediaRemote, send: Callable[[str], Any], fate: str
) -> None:
    made = put(database, photo, enqueue=no_work, now=NOW, store=store)
    if fate == "edited":
        with photo.open("r+b") as file:
            file.write(b"other")
    if fate == "replaced":
        photo.write_bytes(b"another photo")
    if fate == "deleted":
        photo.unlink()
    if fate == "truncated":
        os.truncate(photo, 10)
    assert send(made.id)["sent"] == len(CONTENT)
    assert remote.whole == {HASH: CONTENT}
    with database.reading() as connection:
        content = contents.get(connection, HASH)
    assert content is not None
    assert content.on_server


def test_a_content_is_kept_once_read_only_and_is_no_link_of_the_file(
    database: Database, store: Store, photo: Path
) -> None:
    first = put(database, photo, enqueue=no_work, now=NOW, store=store)
    second = put(database, str(photo), enqueue=no_work, now=NOW + 1, store=store)
    status = store.path(HASH).stat()
    assert (status.st_nlink, status.st_mode & 0o777, status.st_ino != photo.stat().st_ino) == (1, 0o400, True)
    assert (first.kept, first.sha256, first.modified_ns) == (True, second.sha256, status.st_mtime_ns)
    assert files(store) == kept(database) == {HASH: len(CONTENT)}
    assert list((store.folder / "incoming").iterdir()) == []


def test_where_blocks_can_be_shared_they_are_and_the_content_is_hashed_from_the_clone(
    database: Database, store: Store, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clone(target: Any, request: int, source: int) -> int:
        assert request == store_module.FICLONE
        os.pwrite(target.fileno(), os.pread(source, len(CONTENT), 0), 0)
        return 0

    monkeypatch.setattr(store_module.fcntl, "ioctl", clone)
    monkeypatch.setattr(store_module, "write", None)
    assert put(database, photo, enqueue=no_work, now=NOW, store=store).sha256 == HASH
    assert store.path(HASH).read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["photo.jpg", "", "../../etc/passwd.txt"])
def test_bytes_are_kept_and_sent(
    database: Database, store: Store, remote: MemoryMediaRemote, send: Callable[[str], Any], name: str
) -> None:
    made = put_bytes(database, store, CONTENT, name=name, enqueue=no_work, now=NOW)
    assert (made.path, made.name, made.size) == ("", Path(name or "content").name, len(CONTENT))
    send(made.id)
    assert remote.whole == {HASH: CONTENT}


def test_a_content_that_is_spoilt_in_the_store_is_parked_not_sent(
    database: Database, store: Store, photo: Path, remote: MemoryMediaRemote, send: Callable[[str], Any]
) -> None:
    made = put(database, photo, enqueue=no_work, now=NOW, store=store)
    store.path(HASH).chmod(0o600)
    with store.path(HASH).open("r+b") as file:
        file.write(b"other")
    with pytest.raises(MediaMissing):
        send(made.id)
    assert remote.whole == {}


def test_what_is_refused_leaves_neither_row_nor_file(database: Database, store: Store, photo: Path) -> None:
    def refuse(_connection: object, _upload: object) -> None:
        raise WorkUnplaceable("no queue", hint="declare one")

    with pytest.raises(WorkUnplaceable):
        put(database, photo, enqueue=refuse, now=NOW, store=store)
    with pytest.raises(Misused):
        put(database, photo.parent / "missing", enqueue=no_work, now=NOW, store=store)
    assert (files(store), kept(database), look(database, store).number) == ({}, {}, 0)


def test_a_full_disk_is_said_and_leaves_nothing(
    database: Database, store: Store, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: object, _chunk: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module, "write", full)
    with pytest.raises(StorageFull, match="No space left"):
        put(database, photo, enqueue=no_work, now=NOW, store=store)
    assert (files(store), kept(database), look(database, store).number) == ({}, {}, 0)


def test_what_was_kept_of_bytes_can_be_put_once_more(database: Database, store: Store) -> None:
    made = put_bytes(database, store, CONTENT, enqueue=no_work, now=NOW)
    with database.writing() as connection:
        uploads.park(connection, made.id, reason="forbidden", now=NOW)
        parked = uploads.get(connection, made.id)
    again = put_kept(database, store, parked, enqueue=no_work, now=NOW + 1)
    assert (again.state, again.reason, again.sha256, again.id != made.id) == ("pending", None, HASH, True)
    with database.writing() as connection:
        contents.forget(connection, [HASH])
    with pytest.raises(Misused, match="gone"):
        put_kept(database, store, parked, enqueue=no_work, now=NOW + 2)


def test_leftovers_orphans_and_dangling_rows_are_seen_and_taken_away(
    database: Database, store: Store, photo: Path
) -> None:
    put(database, photo, enqueue=no_work, now=NOW, store=store)
    dangling, short, orphan = (sha256(name).hexdigest() for name in (b"dangling", b"short", b"orphan"))
    with database.writing() as connection:
        contents.keep(connection, dangling, size=1, now=NOW)
        contents.keep(connection, short, size=10, now=NOW)
    for name in (orphan, short):
        store.path(name).parent.mkdir(exist_ok=True)
        store.path(name).write_bytes(b"x")
    (store.folder / "incoming" / "left").write_bytes(b"x")
    seen = look(database, store)
    assert look(database, store) == seen
    assert (seen.leftovers, seen.orphans, set(seen.dangling)) == (1, [orphan], {dangling, short})
    assert tidy(database, store) == seen
    assert look(database, store).number == 0
    assert files(store) == kept(database) == {HASH: len(CONTENT)}


def test_what_is_on_its_way_in_is_no_leftover(database: Database, store: Store) -> None:
    with store.incoming() as incoming:
        assert tidy(database, store).number == 0
        with store.arriving():
            store.admit(incoming, HASH)
            found = tidy(database, store)
            assert (found.number, found.whole) == (0, False)
            assert files(store) == {HASH: 0}
    assert tidy(database, store).orphans == [HASH]


def test_where_the_folder_is_not_there_no_row_is_judged(database: Database, tmp_path: Path) -> None:
    with database.writing() as connection:
        contents.keep(connection, HASH, size=1, now=NOW)
    assert tidy(database, Store(tmp_path / "unmounted")).number == 0
    assert kept(database) == {HASH: 1}
