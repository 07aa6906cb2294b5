"""Requests for media that are wrong, lie, or meet: a status and a problem each, nothing partial seen, nothing lost.

The replica's end: unit/media/test_bad_input.py. A bucket that answers 503: test_buckets.py.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import requests

from tests import services
from tests.faults.small_disk import fill, small_disk
from tests.unit.server.conftest import Caller, SetClock, problem
from tests.unit.server.test_media import CHUNK, DAY_MS, TUS, HalfSent, checksum, coded, create, offset, patch, sha256
from tests.waiting import eventually

FILM = os.urandom(2_000_000)
HALF = 1_000_000


def unseen(till: Caller, data: bytes = FILM) -> bool:
    """To who asks by hash, or for many hashes, or for the bytes."""
    where = f"/v1/media/sha256/{sha256(data)}"
    statuses = {till.call(method, where).status_code for method in ("HEAD", "GET")}
    return statuses == {404} and till.call("POST", "/v1/media/known", {"hashes": [sha256(data)]}).json()["hashes"] == []


def half_sent(till: Caller, server: services.SyncServer, address: str) -> requests.Response:
    """More was announced than came."""
    sending = HalfSent(till, address, FILM[HALF:-1], HALF, at=HALF, **checksum(FILM[HALF:]))
    sending.cut()
    eventually(lambda: till.call("HEAD", address, headers=TUS).status_code == 200, what="the server has let go of it")
    return patch(till, address, HALF + 1, b"x")  # no byte of it counts


WRONG: dict[str, tuple[Callable[[Caller, services.SyncServer, str], requests.Response], tuple[int, str]]] = {
    "a wrong checksum": (
        lambda till, _, where: patch(till, where, HALF, FILM[HALF:], **checksum(b"other")),
        (460, "checksum-mismatch"),
    ),
    "a checksum of an unknown kind": (
        lambda till, _, where: patch(till, where, HALF, FILM[HALF:], **{"Upload-Checksum": "md5 eA=="}),
        (400, "checksum-unsupported"),
    ),
    "a checksum that is none": (
        lambda till, _, where: patch(till, where, HALF, FILM[HALF:], **{"Upload-Checksum": "sha256 ?"}),
        (460, "checksum-mismatch"),
    ),
    "an offset beyond the end": (
        lambda till, _, where: patch(till, where, len(FILM) + 1, b"x"),
        (409, "offset-mismatch"),
    ),
    "an offset that was passed": (lambda till, _, where: patch(till, where, 0, FILM[:HALF]), (409, "offset-mismatch")),
    "an offset of twenty digits": (
        lambda till, _, where: patch(till, where, 10**20, b"x"),
        (400, "malformed"),
    ),
    "a negative offset": (lambda till, _, where: patch(till, where, -1, b"x"), (400, "malformed")),
    "more bytes than were announced": (
        lambda till, _, where: patch(till, where, HALF, FILM[HALF:] + b"x"),
        (413, "upload-too-large"),
    ),
    "more bytes, and nobody said how many": (
        lambda till, _, where: patch(till, where, HALF, iter([FILM[HALF:], b"x"])),  # type: ignore[arg-type]
        (413, "upload-too-large"),
    ),
    "fewer bytes than the request announced": (half_sent, (409, "offset-mismatch")),
    "bytes that are packed": (
        lambda till, _, where: patch(till, where, HALF, FILM[HALF:], **{"Content-Encoding": "gzip"}),
        (415, "unsupported-coding"),
    ),
    "bytes as a form": (
        lambda till, _, where: patch(till, where, HALF, FILM[HALF:], **{"Content-Type": "text/plain"}),
        (415, "unsupported-media-type"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_changes_nothing_and_the_upload_goes_on(
    till: Caller, server: services.SyncServer, name: str
) -> None:
    ask, told = WRONG[name]
    address = create(till, FILM).headers["Location"]
    assert patch(till, address, 0, FILM[:HALF]).status_code == 204
    assert problem(ask(till, server, address)) == told
    assert unseen(till)
    assert offset(till, address) == HALF
    assert patch(till, address, HALF, FILM[HALF:], **checksum(FILM[HALF:])).status_code == 204
    assert till.call("GET", f"/v1/media/sha256/{sha256(FILM)}").content == FILM


@pytest.mark.parametrize(
    ("length", "told"), [(len(FILM) - 1, (422, "content-mismatch")), (len(FILM) + 1, None)], ids=["less", "more"]
)
def test_a_length_that_lies_is_never_a_content(till: Caller, length: int, told: tuple[int, str] | None) -> None:
    address = create(till, FILM, **{"Upload-Length": str(length)}).headers["Location"]
    answer = patch(till, address, 0, FILM[:length])
    assert (None if answer.status_code == 204 else problem(answer)) == told
    assert unseen(till)
    assert unseen(till, FILM[:length])
    if told is None:
        assert offset(till, address) == len(FILM)  # it waits for a byte that there is not, until it expires
    else:
        assert till.call("HEAD", address, headers=TUS).status_code == 404


@pytest.mark.parametrize(
    ("length", "told"),
    [
        ("18446744073709551617", (400, "malformed")),
        ("999999999999999999", (413, "upload-too-large")),
        ("0x10", (400, "malformed")),
        ("\u0661", (400, "malformed")),
    ],
    ids=["2^64", "10^18", "hexadecimal", "other digits"],
)
def test_a_length_that_is_none_makes_nothing(
    till: Caller, server: services.SyncServer, length: str, told: tuple[int, str]
) -> None:
    folder = server.settings.data / "media" / "uploads"
    before = sorted(folder.iterdir())
    assert problem(create(till, FILM, **{"Upload-Length": length.encode()})) == told  # type: ignore[arg-type]
    assert sorted(folder.iterdir()) == before


def test_of_two_writers_of_one_upload_one_ends_and_the_content_is_right(till: Caller) -> None:
    """They may take turns; what counts is that no byte of one stands for a byte of the other."""
    address = create(till, FILM).headers["Location"]
    together = Barrier(2)

    def write() -> list[int]:
        statuses: list[int] = []
        headers = CHUNK | {"Authorization": str(till.session.headers["Authorization"])}
        with requests.Session() as session:
            together.wait(60)
            while statuses.count(204) < 100:
                at = session.head(till.server.url + address, headers=headers, timeout=20).headers.get("Upload-Offset")
                if at is None or int(at) == len(FILM):
                    return statuses
                data = FILM[int(at) : int(at) + 200_000]
                said = headers | {"Upload-Offset": at} | checksum(data)
                answer = session.patch(till.server.url + address, data=data, headers=said, timeout=20)
                statuses.append(answer.status_code)
        raise AssertionError("it never ends")

    with ThreadPoolExecutor(2) as pool:
        found = [status for one in [pool.submit(write), pool.submit(write)] for status in one.result()]
    assert set(found) <= {204, 408, 409}
    assert found.count(204) == 10
    assert till.call("GET", f"/v1/media/sha256/{sha256(FILM)}").content == FILM


def test_two_uploads_of_one_content_at_once_are_one_content(till: Caller, server: services.SyncServer) -> None:
    addresses = [create(till, FILM).headers["Location"] for _ in range(4)]
    headers = CHUNK | {"Upload-Offset": "0", "Authorization": str(till.session.headers["Authorization"])}

    def send(address: str) -> int:
        return requests.patch(till.server.url + address, data=FILM, headers=headers, timeout=20).status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(send, addresses)) == {204}
    assert till.call("GET", f"/v1/media/sha256/{sha256(FILM)}").content == FILM
    scope = hashlib.sha256(till.registered["scope"].encode()).hexdigest()
    assert len(list((server.settings.data / "media" / "content" / scope).iterdir())) == 1


@pytest.mark.parametrize("how", ["terminated", "expired"])
def test_an_upload_that_is_gone_is_told_to_be(till: Caller, clock: SetClock, how: str) -> None:
    address = create(till, FILM).headers["Location"]
    assert patch(till, address, 0, FILM[:HALF]).status_code == 204
    if how == "terminated":
        till.call("DELETE", address, headers=TUS)
    else:
        clock.ahead += 8 * DAY_MS
    told = (404, "not-found") if how == "terminated" else (410, "upload-expired")
    assert problem(patch(till, address, HALF, FILM[HALF:])) == told
    assert unseen(till)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[tuple[services.SyncServer, Path]]:
    """A server whose media, and only they, lie on a small disk; and a file that fills that."""
    with small_disk() as disk:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "media").symlink_to(disk)
        with services.sync_server(tmp_path / "data", most_upload=64 * 2**20) as running:
            yield running, disk / "filler"


def test_a_full_disk_is_told_and_the_upload_goes_on_when_there_is_room(
    full: tuple[services.SyncServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, filler = full
    till = Caller(server)
    address = create(till, FILM).headers["Location"]
    assert patch(till, address, 0, FILM[:HALF]).status_code == 204
    fill(filler)
    assert problem(create(till, FILM)) == (507, "storage-full")
    monkeypatch.setattr("backhaul.server.contents.disk.DiskStore.free", lambda _store: 2**40)  # it was taken meanwhile
    made = create(till, FILM)
    for where, at in ((address, HALF), (made.headers["Location"], 0)):
        for said in ({}, {"Upload-Checksum": f"sha256 {b64encode(hashlib.sha256(FILM[at:]).digest()).decode()}"}):
            assert problem(patch(till, where, at, FILM[at:], **said)) == (507, "storage-full")
    assert unseen(till)
    filler.unlink()
    assert offset(till, address) == HALF
    assert patch(till, address, HALF, FILM[HALF:]).status_code == 204
    assert till.call("GET", f"/v1/media/sha256/{sha256(FILM)}").content == FILM
    till.session.close()


def test_names_that_nobody_should_have_bring_no_file_anywhere(till: Caller, server: services.SyncServer) -> None:
    outside = set(server.settings.data.parent.iterdir())
    for number, name in enumerate(("../" * 20 + "x", "a\0b", "x" * 4096, "\u202egpj.exe", "\u4f60" * 1500)):
        data = b"%d" % number
        made = create(till, data, **{"Upload-Metadata": coded(sha256=sha256(data), filename=name)})
        if made.status_code != 201:
            assert problem(made) == (400, "metadata-invalid")  # longer than what is read of it
            continue
        assert patch(till, made.headers["Location"], 0, data).status_code == 204
    assert set(server.settings.data.parent.iterdir()) == outside
    stored = [path for path in (server.settings.data / "media").rglob("*") if path.is_file()]
    assert all(
        set(path.name) <= set("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-") for path in stored
    )
