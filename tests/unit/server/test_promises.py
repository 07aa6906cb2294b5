"""What an offset promises: the bytes outlive the server's process; after a power cut the upload stands where it was
safe on disk; and what becomes content is on disk and right, whatever happened on the way."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import text

from backhaul.database import open_database
from backhaul.server import uploads
from backhaul.server.contents.disk import DiskStore
from backhaul.server.hashes import Hashes, Running
from backhaul.server.syncing import MOST_BEHIND, SYNC_EVERY, Syncing
from backhaul.server.uploads import Upload
from tests import services
from tests.unit.server.conftest import Caller
from tests.unit.server.test_media import TUS, HalfSent, checksum, create, offset, patch, sha256
from tests.waiting import eventually

FILM = os.urandom(24 * 2**20 + 5)
CHUNK = 2**20


def row(server: services.SyncServer, statement: str) -> Any:
    with closing(open_database(server.settings.url)) as database, database.writing() as connection:
        found = connection.execute(text(statement))
        return found.one() if found.returns_rows else None


def file_of(server: services.SyncServer, address: str) -> Path:
    return server.settings.data / "media" / "uploads" / address.rpartition("/")[2]


def content(till: Caller, data: bytes) -> bytes:
    return till.call("GET", f"/v1/media/sha256/{sha256(data)}").content


def standing(server: services.SyncServer, address: str) -> tuple[int, int]:
    """Promised, and safe on disk."""
    name = address.rpartition("/")[2]
    return tuple(row(server, f"SELECT position, synced FROM server_upload WHERE id = '{name}'"))


def power_cut(server: services.SyncServer, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has started anew, and of what was not synced it has zeros. (What the process of before was about to
    note is not noted: it is dead.)"""
    monkeypatch.setattr(uploads, "sync", lambda *_, **__: None)
    row(server, "UPDATE server_upload SET boot = 'the start before' WHERE boot <> ''")
    safe = standing(server, address)[1]
    with file_of(server, address).open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(safe)
        file.write(bytes(size - safe))


def test_after_a_power_cut_an_upload_stands_where_it_was_safe_on_disk(
    till: Caller, server: services.SyncServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = FILM[: 3 * CHUNK]
    address = create(till, data).headers["Location"]
    assert patch(till, address, 0, data[:CHUNK]).status_code == 204
    name = address.rpartition("/")[2]
    row(server, f"UPDATE server_upload SET synced = 1000 WHERE id = '{name}'")
    power_cut(server, address, monkeypatch)
    assert offset(till, address) == 1000
    assert patch(till, address, CHUNK, data[CHUNK:]).status_code == 409
    assert patch(till, address, 1000, data[1000:]).status_code == 204
    assert content(till, data) == data


def test_a_chunk_with_a_checksum_is_no_safer(
    till: Caller, server: services.SyncServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = FILM[: 2 * CHUNK]
    address = create(till, data).headers["Location"]
    assert patch(till, address, 0, data[:CHUNK], **checksum(data[:CHUNK])).status_code == 204
    assert standing(server, address) == (CHUNK, 0)
    power_cut(server, address, monkeypatch)
    assert offset(till, address) == 0


def test_what_is_promised_gets_to_the_disk_behind_what_comes(
    till: Caller, server: services.SyncServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = create(till, FILM).headers["Location"]
    for at in range(0, len(FILM) - 5, CHUNK):
        assert patch(till, address, at, FILM[at : at + CHUNK]).status_code == 204
        promised, safe = standing(server, address)
        assert promised == at + CHUNK
        assert promised - safe <= MOST_BEHIND + CHUNK
    eventually(lambda: standing(server, address)[1] >= SYNC_EVERY, what="the first bytes are safe on disk")
    power_cut(server, address, monkeypatch)
    kept = offset(till, address)
    assert SYNC_EVERY <= kept <= promised
    assert patch(till, address, kept, FILM[kept:]).status_code == 204
    assert content(till, FILM) == FILM


def test_an_upload_goes_on_at_the_byte_in_another_process(tmp_path: Path) -> None:
    """Where nothing of the first one was synced, and its hash is lost."""
    data = FILM[: 2 * CHUNK]
    with services.sync_server(tmp_path / "data") as running:
        till = Caller(running)
        address = create(till, data).headers["Location"]
        assert patch(till, address, 0, data[:CHUNK]).status_code == 204
        assert standing(running, address) == (CHUNK, 0)
        token = till.session.headers["Authorization"]
        till.session.close()
    with services.sync_server(tmp_path / "data") as running, requests.Session() as session:
        session.headers.update({"Authorization": str(token), "Tus-Resumable": "1.0.0"})
        assert session.head(running.url + address, timeout=20).headers["Upload-Offset"] == str(CHUNK)
        said = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(CHUNK)}
        assert session.patch(running.url + address, data=data[CHUNK:], headers=said, timeout=20).status_code == 204
        assert session.get(f"{running.url}/v1/media/sha256/{sha256(data)}", timeout=20).content == data


def test_of_two_processes_one_has_an_upload_in_hand(tmp_path: Path) -> None:
    """The other one would cut off what this one has promised since it looked."""
    with services.sync_server(tmp_path / "server") as one, services.sync_server(tmp_path / "server") as other:
        till = Caller(one)
        address = create(till, FILM).headers["Location"]
        assert patch(till, address, 0, FILM[:CHUNK]).status_code == 204
        hanging = HalfSent(till, address, FILM[CHUNK : 6 * CHUNK], len(FILM) - CHUNK, at=CHUNK)
        eventually(lambda: standing(one, address)[0] > CHUNK, what="some of it is promised")
        till.server = other
        for method in ("HEAD", "PATCH", "DELETE"):
            answer = till.call(method, address, headers=TUS)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        hanging.cut()
        eventually(lambda: till.call("HEAD", address, headers=TUS).status_code == 200, what="it is let go of")
        at = offset(till, address)
        assert at > CHUNK
        assert patch(till, address, at, FILM[at:]).status_code == 204
        assert content(till, FILM) == FILM
        till.session.close()


def test_before_it_is_content_all_of_it_is_on_the_disk(
    till: Caller, server: services.SyncServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, synced, sync = FILM[: 3 * CHUNK], list[int](), os.fsync
    address = create(till, data).headers["Location"]
    published: list[list[int]] = []
    publish = DiskStore.publish
    inode = file_of(server, address).stat().st_ino

    def watched(handle: int) -> None:
        sync(handle)
        if os.fstat(handle).st_ino == inode:
            synced.append(os.fstat(handle).st_size)

    def publishing(self: DiskStore, *arguments: Any) -> None:
        published.append(list(synced))
        publish(self, *arguments)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(DiskStore, "publish", publishing)
    for at in range(0, len(data), CHUNK):
        assert patch(till, address, at, data[at : at + CHUNK]).status_code == 204
    assert published == [[len(data)]]


def test_a_disk_that_does_not_take_it_takes_the_promise_back(
    till: Caller, server: services.SyncServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of it once, and has thrown the pages away."""
    address = create(till, FILM).headers["Location"]
    assert patch(till, address, 0, FILM[:CHUNK]).status_code == 204
    inode, sync = file_of(server, address).stat().st_ino, os.fsync

    def failing(handle: int) -> None:
        if os.fstat(handle).st_ino == inode:
            raise OSError(5, "Input/output error")
        sync(handle)

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", failing)
        with suppress(requests.ConnectionError):  # the server hangs up on bytes that are still under way
            assert patch(till, address, CHUNK, FILM[CHUNK:]).status_code >= 400
    assert standing(server, address) == (0, 0)
    assert offset(till, address) == 0
    assert patch(till, address, 0, FILM).status_code == 204
    assert content(till, FILM) == FILM


# ------------------------------------------------------------------------------------------------------------ the hash


def test_what_came_to_one_process_is_not_read_once_more(till: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("the whole is read")

    monkeypatch.setattr(DiskStore, "whole", never)
    data = FILM[: 3 * CHUNK + 1]
    address = create(till, data).headers["Location"]
    for at in range(0, len(data), CHUNK):
        assert patch(till, address, at, data[at : at + CHUNK]).status_code == 204
    assert content(till, data) == data


def test_bytes_that_were_thrown_away_do_not_count(till: Caller) -> None:
    data = FILM[: 2 * CHUNK]
    address = create(till, data).headers["Location"]
    assert patch(till, address, 0, data[:CHUNK]).status_code == 204
    assert patch(till, address, CHUNK, b"x" * CHUNK, **checksum(data)).status_code == 460
    assert patch(till, address, CHUNK, data[CHUNK:]).status_code == 204
    assert content(till, data) == data


def test_a_cut_chunk_counts_as_far_as_it_was_kept(till: Caller) -> None:
    data = FILM[: 3 * CHUNK]
    address = create(till, data).headers["Location"]

    def kept_of_it() -> int:
        """Again, where the cut was seen before a byte was read: there was nothing to keep."""
        HalfSent(till, address, data[: CHUNK + 7], len(data)).cut()
        return offset(till, address)

    at = eventually(kept_of_it, what="what came is kept")
    assert patch(till, address, at, data[at:]).status_code == 204
    assert content(till, data) == data


def test_other_bytes_than_were_promised_are_found_as_they_come(till: Caller) -> None:
    address = create(till, FILM[:CHUNK]).headers["Location"]
    assert patch(till, address, 0, b"y" * CHUNK).status_code == 422
    assert till.call("HEAD", address, headers={"Tus-Resumable": "1.0.0"}).status_code == 404


def upload(position: int, name: str = "up", synced: int = 0) -> Upload:
    return Upload(
        id=name, scope="shop", replica="r", length=2**40, position=position, sha256=None, metadata="", expires_at=0,
        synced=synced, boot="now",
    )  # fmt: skip


def test_a_hash_is_of_the_bytes_that_are_here_or_there_is_none() -> None:
    hashes, running = Hashes(most=2), Running()
    running.add(b"12")
    running.add(b"345" * 20)
    assert running.found() == (hashlib.sha256(b"12" + b"345" * 20).hexdigest(), (b"12" + b"345" * 20)[:32])
    hashes.keep("up", running)
    assert hashes.take(upload(61)) is None  # and whoever has taken it has it alone
    hashes.keep("up", running)
    assert hashes.take(upload(62)) is running
    assert hashes.take(upload(62)) is None
    for name in ("up", "b", "c"):
        hashes.keep(name, running)
    assert hashes.take(upload(62)) is None
    assert hashes.take(upload(62, "c")) is running


# -------------------------------------------------------------------------------------------------- beside what comes


class Disk:
    """Of which a sync takes as long as one wants. The place of an intake."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.done = asyncio.Event()

    async def run(self, _function: Callable[..., Any], of: Upload) -> int:
        self.begun.append(of.position)
        await self.done.wait()
        return of.position

    def make_safe(self) -> None: ...


def test_what_comes_waits_for_a_disk_that_is_far_behind() -> None:
    async def story() -> None:
        disk = Disk()
        syncing = Syncing(disk, disk.run)  # type: ignore[arg-type]
        assert await syncing.follow(upload(SYNC_EVERY - 1)) == upload(SYNC_EVERY - 1)
        await syncing.follow(upload(SYNC_EVERY))
        await syncing.follow(upload(MOST_BEHIND - 1))
        await asyncio.sleep(0)
        assert disk.begun == [SYNC_EVERY]
        waiting = asyncio.create_task(syncing.follow(upload(MOST_BEHIND)))
        done, _ = await asyncio.wait([waiting], timeout=0.05)
        assert not done
        disk.done.set()
        assert (await waiting).synced == SYNC_EVERY
        await syncing.ended(upload(MOST_BEHIND))
        assert disk.begun == [SYNC_EVERY, MOST_BEHIND]

    asyncio.run(story())
