"""What a resumable upload says, and what it believes."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256

import pytest

from backhaul.errors import Busy, Refused, SignInRequired, Unreachable
from backhaul.remotes import address
from backhaul.remotes.tus import TusRemote
from tests.unit.remotes.stub import StubServer, reply, stub

HASH = "ab" * 32


def page(status: int, headers: dict[str, str] | None = None) -> bytes:
    """What a hotel's network says in the server's place."""
    return reply(status, b"<html>Sign in</html>", content_type="text/html", protocol=None, headers=headers)


@contextmanager
def remote(*replies: bytes) -> Iterator[tuple[TusRemote, StubServer]]:
    with stub(*replies) as server, closing(TusRemote(server.url, "token")) as client:
        yield client, server


def test_a_creation_tells_size_hash_name_and_type_and_yields_the_address() -> None:
    with remote(reply(201, Location="/v1/media/abc-1_2")) as (client, server):
        address = client.create(size=7, sha256=HASH, name="größe, 1.jpg", media_type="image/jpeg")
    (request,) = server.requests
    told = dict(pair.split(" ") for pair in request.headers["Upload-Metadata"].split(","))
    assert address == "/v1/media/abc-1_2"
    assert (request.method, request.path) == ("POST", "/v1/media")
    assert (request.headers["Tus-Resumable"], request.headers["Upload-Length"]) == ("1.0.0", "7")
    assert request.headers["Content-Length"] == "0"
    assert told == {
        "sha256": b64encode(HASH.encode()).decode(),
        "filename": b64encode("größe, 1.jpg".encode()).decode(),
        "filetype": b64encode(b"image/jpeg").decode(),
    }


@pytest.mark.parametrize("location", ["https://elsewhere.example/v1/media/abc", "http://inside:80/prefix/v1/media/abc"])
def test_an_address_is_always_one_of_the_server_we_know(location: str) -> None:
    with remote(reply(201, Location=location), reply(200, Upload_Offset="0")) as (client, server):
        address = client.create(size=7, sha256=HASH, name="a", media_type="b")
        assert client.sent(address) == 0
    assert server.requests[1].path == "/v1/media/abc"


@pytest.mark.parametrize("location", ["", "/elsewhere/abc", "/v1/media/../../etc", "/v1/media/a?b"])
def test_a_creation_without_an_address_is_not_believed(location: str) -> None:
    with remote(reply(201, Location=location)) as (client, _), pytest.raises(Unreachable):
        client.create(size=7, sha256=HASH, name="a", media_type="b")


@pytest.mark.parametrize("guarded", [True, False])
def test_a_chunk_carries_its_offset_and_where_nothing_else_guards_it_its_checksum(
    monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    chunk = memoryview(b"0123456789" * 10_000)
    monkeypatch.setattr(address, "guarded", lambda _url: guarded)
    with remote(reply(204, Upload_Offset="100005")) as (client, server):
        assert client.append("/v1/media/a", 5, chunk) == 100_005
    (request,) = server.requests
    assert request.body == bytes(chunk)
    assert request.headers["Upload-Offset"] == "5"
    assert request.headers["Content-Type"] == "application/offset+octet-stream"
    checksum = f"sha256 {b64encode(sha256(chunk).digest()).decode()}"
    assert request.headers.get("Upload-Checksum") == (None if guarded else checksum)
    assert request.headers["Content-Length"] == "100000"


@pytest.mark.parametrize("offset", ["", "-1", "1e3", "all", "9" * 30])
def test_an_offset_that_is_no_number_is_not_believed(offset: str) -> None:
    with remote(reply(200, Upload_Offset=offset)) as (client, _), pytest.raises(Unreachable):
        client.sent("/v1/media/a")


@pytest.mark.parametrize("status", [404, 410])
def test_what_the_server_does_not_know_is_unknown(status: int) -> None:
    with remote(reply(status)) as (client, _):
        assert client.sent("/v1/media/a") is None
        assert client.has(HASH) is False


def test_what_the_server_has_it_has() -> None:
    with remote(reply(200)) as (client, server):
        assert client.has(HASH) is True
    assert (server.requests[0].method, server.requests[0].path) == ("HEAD", f"/v1/media/sha256/{HASH}")


@pytest.mark.parametrize("status", [200, 404])
def test_a_sign_in_page_neither_has_a_file_nor_has_forgotten_an_upload(status: int) -> None:
    with remote(page(status)) as (client, _):
        with pytest.raises(Unreachable, match="does not answer like"):
            client.has(HASH)
        with pytest.raises(Unreachable, match="does not answer like"):
            client.sent("/v1/media/a")


def test_a_sign_in_page_takes_no_bytes() -> None:
    with remote(page(200, {"Upload-Offset": "3"})) as (client, _), pytest.raises(Unreachable):
        client.append("/v1/media/a", 0, b"abc")


def test_a_wrong_offset_is_refused_by_its_name() -> None:
    problem = b'{"type": "https://backhaul.invalid/problems/offset-mismatch", "title": "at 7"}'
    answer = reply(409, problem, content_type="application/problem+json")
    with remote(answer) as (client, _), pytest.raises(Refused) as caught:
        client.append("/v1/media/a", 0, b"abc")
    assert (caught.value.problem, caught.value.status) == ("offset-mismatch", 409)


def test_bytes_damaged_on_the_way_may_be_sent_again() -> None:
    with remote(reply(460)) as (client, _), pytest.raises(Unreachable, match="damaged"):
        client.append("/v1/media/a", 0, b"abc")


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, Unreachable), (401, SignInRequired), (403, SignInRequired), (429, Busy), (503, Busy), (500, Unreachable)],
)
def test_an_answer_without_a_body_means_what_its_status_says(status: int, error: type[Exception]) -> None:
    with remote(reply(status)) as (client, _), pytest.raises(error):
        client.sent("/v1/media/a")


def part(content: bytes, told: str, status: int = 206) -> bytes:
    return reply(status, content, content_type="image/jpeg", headers={"Content-Range": told} if told else None)


def test_a_range_is_asked_for_of_that_content_and_uncoded() -> None:
    with remote(part(b"cde", "bytes 2-4/7")) as (client, server):
        got = client.fetch(HASH, 2, 3)
    (request,) = server.requests
    assert (got.content, got.size) == (b"cde", 7)
    assert (request.method, request.path) == ("GET", f"/v1/media/sha256/{HASH}")
    assert (request.headers["Range"], request.headers["If-Range"]) == ("bytes=2-4", f'"{HASH}"')
    assert request.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("content", "told", "status"),
    [
        (b"cde", "bytes 1-3/7", 206),
        (b"cde", "bytes 2-5/7", 206),
        (b"cde", "bytes 2-4/4", 206),
        (b"cde", "bytes 2-4/*", 206),
        (b"cde", "", 206),
        (b"abcdefg", "", 200),
        (b"", "bytes 2-1/7", 206),
    ],
)
def test_another_part_than_was_asked_for_is_not_believed(content: bytes, told: str, status: int) -> None:
    with remote(part(content, told, status)) as (client, _), pytest.raises(Unreachable):
        client.fetch(HASH, 2, 3)


def test_a_server_without_ranges_gives_the_whole_from_its_beginning() -> None:
    with remote(part(b"abc", "", 200)) as (client, _):
        assert client.fetch(HASH, 0, 10).content == b"abc"


def test_a_page_of_the_network_is_no_content() -> None:
    with remote(page(200)) as (client, _), pytest.raises(Unreachable):
        client.fetch(HASH, 0, 10)
