"""The contract of a MediaRemote: what every server keeps, in memory and over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256

import pytest

from backhaul.errors import Refused
from backhaul.remotes.base import MediaRemote
from backhaul.remotes.http import HttpRemote
from backhaul.remotes.memory_media import MemoryMediaRemote
from backhaul.remotes.tus import TusRemote
from tests.services import SyncServer, sync_server

CONTENT = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncServer]:
    with sync_server(tmp_path_factory.mktemp("server")) as real:
        yield real


@pytest.fixture(params=["memory", "http"])
def remote(request: pytest.FixtureRequest) -> Iterator[MediaRemote]:
    with ExitStack() as stack:
        if request.param == "memory":
            yield MemoryMediaRemote()
            return
        server = request.getfixturevalue("real")
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


def test_what_was_never_sent_is_not_there(remote: MediaRemote) -> None:
    assert not remote.has(hash_of(b"never"))
