"""The contract of a MediaRemote: what every server keeps, in memory and over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

import pytest

from backhaul.errors import Refused
from backhaul.remotes.base import MediaRemote, Whole
from backhaul.remotes.http import HttpRemote
from backhaul.remotes.memory_media import MemoryMediaRemote
from backhaul.remotes.tus import TusRemote
from tests.services import SyncServer, sync_server

CONTENT = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncServer]:
    with sync_server(tmp_path_factory.mktemp("server")) as real:
        yield real


@pytest.fixture
def of_bucket(tmp_path: Path, buckets: str, credentials: None) -> Iterator[SyncServer]:
    with sync_server(tmp_path / "server", media=f"s3://photos/{token_hex(8)}?endpoint={buckets}") as running:
        yield running


@pytest.fixture(params=["memory", "http", "http, files in a bucket"])
def remote(request: pytest.FixtureRequest) -> Iterator[MediaRemote]:
    with ExitStack() as stack:
        if request.param == "memory":
            yield MemoryMediaRemote()
            return
        server = request.getfixturevalue("real" if request.param == "http" else "of_bucket")
        registration = HttpRemote(server.url)
        stack.callback(registration.close)
        remote = TusRemote(server.url, registration.register(server.enrol(request.node.name), [], "camera").token)
        stack.callback(remote.close)
        yield remote


def hash_of(content: bytes) -> str:
    return sha256(content).hexdigest()


def create(remote: MediaRemote, content: bytes = CONTENT, promised: str | None = None) -> str:
    return remote.create(
        size=len(content), sha256=promised or hash_of(content), name="größe, 1.jpg", media_type="image/jpeg"
    )


def test_a_content_is_there_when_its_last_byte_is(remote: MediaRemote) -> None:
    address = create(remote)
    assert remote.sent(address) == 0
    assert remote.append(address, 0, CONTENT[:1_000]) == 1_000
    assert not remote.has(hash_of(CONTENT))
    assert remote.sent(address) == 1_000
    assert remote.append(address, 1_000, memoryview(CONTENT)[1_000:]) == len(CONTENT)
    assert remote.has(hash_of(CONTENT))


@pytest.mark.parametrize("content", [b"", b"x"])
def test_the_smallest_contents_are_contents(remote: MediaRemote, content: bytes) -> None:
    address = create(remote, content)
    if content:
        remote.append(address, 0, content)
    assert remote.has(hash_of(content))


def test_a_wrong_offset_is_refused_and_changes_nothing(remote: MediaRemote) -> None:
    address = create(remote)
    remote.append(address, 0, CONTENT[:10])
    for at in (0, 9, 11):
        with pytest.raises(Refused) as caught:
            remote.append(address, at, b"x")
        assert (caught.value.problem, caught.value.status) == ("offset-mismatch", 409)
    assert remote.sent(address) == 10


def test_an_unknown_upload_is_unknown(remote: MediaRemote) -> None:
    address = create(remote)
    nowhere = address[: -len(address.rsplit("/", 1)[1])] + "0123456789abcdef0123456789abcdef"
    assert remote.sent(nowhere) is None
    with pytest.raises(Refused) as caught:
        remote.append(nowhere, 0, b"x")
    assert caught.value.status in (404, 410)


def test_two_uploads_of_one_content_do_not_meet(remote: MediaRemote) -> None:
    first, second = create(remote), create(remote)
    assert first != second
    remote.append(first, 0, CONTENT[:10])
    assert remote.sent(second) == 0
    remote.append(second, 0, CONTENT)
    assert remote.has(hash_of(CONTENT))
    remote.append(first, 10, CONTENT[10:])
    assert remote.has(hash_of(CONTENT))


def test_a_content_that_breaks_its_promise_is_refused_and_not_kept(remote: MediaRemote) -> None:
    address = create(remote, promised=hash_of(b"another"))
    with pytest.raises(Refused) as caught:
        remote.append(address, 0, CONTENT)
    assert (caught.value.problem, caught.value.status) == ("content-mismatch", 422)
    assert not remote.has(hash_of(CONTENT))
    assert not remote.has(hash_of(b"another"))


def test_more_bytes_than_were_announced_are_refused(remote: MediaRemote) -> None:
    address = create(remote)
    with pytest.raises(Refused) as caught:
        remote.append(address, 0, CONTENT + b"!")
    assert caught.value.status in (400, 413)
    assert remote.sent(address) == 0


def test_of_many_contents_those_that_are_there_are_told_at_once(remote: MediaRemote) -> None:
    whole, cut, never = hash_of(b"whole"), hash_of(b"cut"), [hash_of(b"%d" % number) for number in range(2_500)]
    remote.append(create(remote, b"whole"), 0, b"whole")
    remote.append(create(remote, b"cut"), 0, b"cu")
    assert remote.known([*never, whole, cut, whole]) == {whole}
    assert remote.known([*never, cut]) == set()
    assert remote.known([]) == set()


def test_small_contents_go_many_at_once(remote: MediaRemote) -> None:
    def small(content: bytes, promised: bytes | None = None) -> Whole:
        hashed = hash_of(content if promised is None else promised)
        return Whole(sha256=hashed, name="größe, 1.jpg", media_type="image/jpeg", content=content)

    good = [small(b""), small(b"x"), small(CONTENT), *(small(b"%d" % number) for number in range(50))]
    spoilt = small(b"other bytes", promised=b"than were promised")
    assert remote.send_whole([*good, spoilt]) == {one.sha256 for one in good}
    assert remote.known([spoilt.sha256, hash_of(b"other bytes"), *(one.sha256 for one in good)]) == {
        one.sha256 for one in good
    }
    assert remote.fetch(hash_of(CONTENT), 0, len(CONTENT)).content == CONTENT
    assert remote.send_whole(good[:3]) == {one.sha256 for one in good[:3]}


def test_what_was_never_sent_is_not_there(remote: MediaRemote) -> None:
    assert not remote.has(hash_of(b"never"))


def whole(remote: MediaRemote, content: bytes) -> str:
    address = create(remote, content)
    if content:
        remote.append(address, 0, content)
    return hash_of(content)


@pytest.mark.parametrize("size", [0, 1, 999, 1_000, 1_001, len(CONTENT)])
def test_a_content_comes_back_range_after_range(remote: MediaRemote, size: int) -> None:
    name, got, at = whole(remote, CONTENT[:size]), b"", 0
    while at < size or not got:
        part = remote.fetch(name, at, 1_000)
        assert part.size == size
        assert len(part.content) == min(1_000, size - at)
        got += part.content
        at = len(got)
        if not size:
            break
    assert got == CONTENT[:size]


def test_what_is_asked_for_from_any_byte_comes_from_there(remote: MediaRemote) -> None:
    name = whole(remote, CONTENT)
    assert remote.fetch(name, 1_234, 10).content == CONTENT[1_234:1_244]
    assert remote.fetch(name, len(CONTENT) - 3, 10).content == CONTENT[-3:]


def test_a_place_beyond_the_end_is_refused(remote: MediaRemote) -> None:
    name = whole(remote, CONTENT)
    with pytest.raises(Refused) as caught:
        remote.fetch(name, len(CONTENT), 10)
    assert (caught.value.problem, caught.value.status) == ("range-unsatisfiable", 416)


def test_what_was_never_sent_cannot_be_fetched(remote: MediaRemote) -> None:
    unfinished = create(remote, CONTENT + b"unfinished")
    remote.append(unfinished, 0, CONTENT)
    for content in (b"never", CONTENT + b"unfinished"):
        with pytest.raises(Refused) as caught:
            remote.fetch(hash_of(content), 0, 10)
        assert caught.value.status == 404
