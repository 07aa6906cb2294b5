"""Media in a bucket, behind a proxy: what the store answers, and what a replica is told then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests

from backhaul.errors import Busy, ConfigurationInvalid, Refused, Unreachable
from backhaul.remotes.base import Fetched
from backhaul.remotes.tus import TusRemote
from backhaul.server.contents import open_store, s3
from backhaul.server.settings import Settings
from tests import services
from tests.faults.proxy import Answer, PassOn, Proxy, Request, honest, proxy
from tests.unit.server.conftest import Caller, SetClock, problem
from tests.unit.server.test_media import DAY_MS, PHOTO, TUS, coded, create, offset, patch, sha256

PART = 5 * 2**20  # the least that there may be
FILM = os.urandom(2 * PART + 7)  # three parts
CHUNK = 3 * 2**20
SLOW_DOWN = Answer(
    status=503,
    headers=[("Content-Type", "application/xml"), ("Retry-After", "7")],
    body=b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your rate.</Message></Error>",
)
STEPS = {
    "multipart begun": lambda request: request.method == "POST" and "?uploads" in request.path,
    "part": lambda request: request.method == "PUT" and "partNumber=" in request.path,
    "multipart completed": lambda request: request.method == "POST" and "uploadId=" in request.path,
    "read back": lambda request: request.method == "GET" and "/uploads/" in request.path,
    "copied": lambda request: any(name.lower() == "x-amz-copy-source" for name in request.headers),
}


@pytest.fixture(scope="module")
def between(buckets: str) -> Iterator[Proxy]:
    with proxy(buckets) as made:
        yield made


@pytest.fixture(autouse=True)
def _honest_again(between: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(s3, "PART", PART)
    yield
    between.rule = honest


@pytest.fixture
def server(tmp_path: Path, between: Proxy, credentials: None, clock: SetClock) -> Iterator[services.SyncServer]:
    media = f"s3://photos/{tmp_path.name}?endpoint={between.url}"
    with services.sync_server(tmp_path / "server", clock=clock, media=media) as running:
        yield running


def bucket(buckets: str) -> Any:
    return boto3.client("s3", endpoint_url=buckets, region_name="us-east-1")


def keys(buckets: str, server: services.SyncServer) -> list[str]:
    """What lies in the bucket for the server, without its prefix."""
    prefix = str(server.settings.media).removeprefix("s3://photos/").partition("?")[0] + "/"
    listed = bucket(buckets).list_objects_v2(Bucket="photos", Prefix=prefix).get("Contents", [])
    return [one["Key"].removeprefix(prefix) for one in listed]


def has(till: Caller, data: bytes) -> bool:
    return till.call("HEAD", f"/v1/media/sha256/{sha256(data)}").status_code == 200


def send_rest(till: Caller, address: str, data: bytes) -> None:
    """As a client does: where the server says, and once more whatever it is told to wait for."""
    while (at := offset(till, address)) < len(data):
        assert patch(till, address, at, data[at : at + CHUNK]).status_code == 204


@pytest.mark.parametrize(
    ("step", "answer"),
    [*((step, SLOW_DOWN) for step in STEPS), ("multipart completed", None)],
    ids=lambda one: one if isinstance(one, str) else "no answer" if one is None else "slow down",
)
def test_a_bucket_that_is_busy_is_waited_for_and_nothing_partial_is_seen(till, server, between, buckets, step, answer):
    refused: list[str] = []

    def rule(request: Request, pass_on: PassOn) -> Answer | None:
        if STEPS[step](request):
            refused.append(request.path)
            return answer
        return pass_on()

    between.rule = rule
    address = create(till, FILM).headers["Location"]
    at = 0
    while at < len(FILM):
        told = patch(till, address, at, FILM[at : at + CHUNK])
        if told.status_code != 204:
            break
        at += CHUNK
    assert problem(told) == (503, "busy")
    assert told.headers["Retry-After"] == ("7" if answer else "2")
    assert refused
    assert not has(till, FILM)
    assert till.call("POST", "/v1/media/known", {"hashes": [sha256(FILM)]}).json() == {"hashes": []}
    assert [key for key in keys(buckets, server) if key.startswith("content/")] == []
    between.rule = honest
    assert offset(till, address) >= min(at + CHUNK, len(FILM))
    send_rest(till, address, FILM)
    assert till.call("GET", f"/v1/media/sha256/{sha256(FILM)}").content == FILM
    assert [key.rpartition("/")[2] for key in keys(buckets, server)] == [sha256(FILM)]
    assert list((server.settings.data / "media" / "parts").iterdir()) == []


def test_a_small_file_that_the_bucket_does_not_take_now_is_taken_when_it_is_asked_for(till, between):
    between.rule = lambda request, pass_on: SLOW_DOWN if request.method == "PUT" else pass_on()
    address = create(till).headers["Location"]
    assert problem(patch(till, address, 0, PHOTO)) == (503, "busy")
    assert not has(till, PHOTO)
    between.rule = honest
    assert offset(till, address) == len(PHOTO)
    assert has(till, PHOTO)


def test_a_creation_with_all_bytes_that_the_bucket_does_not_take_leaves_nothing(till, server, between):
    between.rule = lambda request, pass_on: SLOW_DOWN if request.method == "PUT" else pass_on()
    headers = TUS | {"Content-Type": "application/offset+octet-stream", "Upload-Length": str(len(PHOTO))}
    assert problem(till.call("POST", "/v1/media", data=PHOTO, headers=headers)) == (503, "busy")
    assert list((server.settings.data / "media" / "parts").iterdir()) == []


def test_our_own_client_is_told_to_wait(till, server, between):
    between.rule = lambda request, pass_on: SLOW_DOWN if request.method == "PUT" else pass_on()
    remote = TusRemote(server.url, till.registered["token"])
    upload = remote.create(size=len(PHOTO), sha256=sha256(PHOTO), name="photo.jpg", media_type="image/jpeg")
    with pytest.raises(Busy) as caught:
        remote.append(upload, 0, PHOTO)
    assert caught.value.retry_after_ms == 7_000
    between.rule = honest
    assert remote.sent(upload) == len(PHOTO)
    assert remote.has(sha256(PHOTO))
    remote.close()


def test_a_bucket_that_does_not_give_a_content_now_is_waited_for(till, between):
    assert patch(till, create(till).headers["Location"], 0, PHOTO).status_code == 204
    between.rule = lambda request, pass_on: SLOW_DOWN
    assert problem(till.call("GET", f"/v1/media/sha256/{sha256(PHOTO)}")) == (503, "busy")
    between.rule = honest
    got = till.call("GET", f"/v1/media/sha256/{sha256(PHOTO)}", headers={"Range": "bytes=7-9"})
    assert (got.status_code, got.content) == (206, PHOTO[7:10])


def test_a_bucket_that_refuses_us_is_a_fault_of_the_server_and_tells_nothing(till, between):
    address = create(till).headers["Location"]
    denied = Answer(status=403, body=b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>")
    between.rule = lambda request, pass_on: denied
    answer = patch(till, address, 0, PHOTO)
    assert problem(answer) == (500, "internal")
    assert "Denied" not in answer.text
    till.session.close()  # after a bug the server closes the connection
    between.rule = honest
    assert offset(till, address) == len(PHOTO)
    assert has(till, PHOTO)


@pytest.mark.parametrize("data", [PHOTO, FILM], ids=["small", "large"])
def test_a_promise_that_is_broken_leaves_nothing_in_the_bucket(till, server, buckets, data):
    address = create(till, data, **{"Upload-Metadata": coded(sha256=sha256(b"other"))}).headers["Location"]
    assert problem(patch(till, address, 0, data)) == (422, "content-mismatch")
    assert keys(buckets, server) == []
    assert till.call("HEAD", address, headers=TUS).status_code == 404


@pytest.mark.parametrize("how", ["terminated", "expired"])
def test_parts_of_an_upload_that_ends_early_are_not_kept(till, server, buckets, clock, how):
    address = create(till, FILM).headers["Location"]
    assert patch(till, address, 0, FILM[:-1]).status_code == 204
    prefix = str(server.settings.media).removeprefix("s3://photos/").partition("?")[0]
    under_way = bucket(buckets).list_multipart_uploads(Bucket="photos").get("Uploads", [])
    assert [one["Key"] for one in under_way if one["Key"].startswith(prefix)] != []
    if how == "terminated":
        assert till.call("DELETE", address, headers=TUS).status_code == 204
    else:
        clock.ahead += 8 * DAY_MS
        create(till)
    under_way = bucket(buckets).list_multipart_uploads(Bucket="photos").get("Uploads", [])
    assert [one["Key"] for one in under_way if one["Key"].startswith(prefix)] == []
    assert not (server.settings.data / "media" / "parts" / address.rpartition("/")[2]).exists()


def test_of_an_upload_under_way_little_lies_on_the_servers_disk(till, server):
    address = create(till, FILM).headers["Location"]
    assert patch(till, address, 0, FILM[:-1]).status_code == 204
    files = (server.settings.data / "media" / "parts" / address.rpartition("/")[2]).iterdir()
    assert sum(file.stat().st_size for file in files) < PART


def test_where_it_is_configured_contents_are_fetched_from_the_bucket_itself(tmp_path, buckets, credentials):
    media = f"s3://photos/redirected?endpoint={buckets}&redirect=60"
    with services.sync_server(tmp_path / "server", media=media) as server:
        till = Caller(server)
        assert patch(till, create(till).headers["Location"], 0, PHOTO).status_code == 204
        where = f"/v1/media/sha256/{sha256(PHOTO)}"
        told = till.call("GET", where, allow_redirects=False)
        assert (told.status_code, told.content, told.headers["Cache-Control"]) == (307, b"", "no-store")
        assert "X-Amz-Expires=60" in told.headers["Location"] or "Expires=" in told.headers["Location"]
        got = requests.get(told.headers["Location"], headers={"Range": "bytes=1-3"}, timeout=20)
        assert (got.status_code, got.content) == (206, PHOTO[1:4])
        assert got.headers["Content-Disposition"] == 'attachment; filename="photo.jpg"'
        assert till.call("HEAD", where).headers["Content-Length"] == str(len(PHOTO))
        with closing(TusRemote(server.url, till.registered["token"])) as ours:
            assert ours.fetch(sha256(PHOTO), 0, 100) == Fetched(PHOTO[:100], len(PHOTO))
            assert ours.fetch(sha256(PHOTO), len(PHOTO) - 1, 100) == Fetched(PHOTO[-1:], len(PHOTO))
            with pytest.raises(Refused) as caught:
                ours.fetch(sha256(PHOTO), len(PHOTO), 100)
            assert caught.value.status == 416
            assert create(till, b"").status_code == 201
            assert ours.fetch(sha256(b""), 0, 100) == Fetched(b"", 0)
        till.session.close()


def test_our_own_client_takes_nothing_of_itself_to_the_bucket_and_waits_where_that_does_not_give(
    tmp_path, buckets, credentials, between
):
    asked: list[Request] = []
    media = f"s3://photos/elsewhere?endpoint={between.url}&redirect=60"
    with services.sync_server(tmp_path / "server", media=media) as server:
        till = Caller(server)
        assert patch(till, create(till).headers["Location"], 0, PHOTO).status_code == 204
        with closing(TusRemote(server.url, till.registered["token"])) as ours:

            def rule(request: Request, pass_on: PassOn) -> Answer | None:
                asked.append(request)
                return pass_on()

            between.rule = rule
            assert ours.fetch(sha256(PHOTO), 0, 10).content == PHOTO[:10]
            (seen,) = asked
            assert not {name.lower() for name in seen.headers} & {"authorization", "backhaul-replica", "cookie"}
            between.rule = lambda request, pass_on: Answer(status=403, body=b"<Code>AccessDenied</Code>")
            with pytest.raises(Unreachable, match="does not give it"):
                ours.fetch(sha256(PHOTO), 0, 10)
            between.rule = lambda request, pass_on: SLOW_DOWN
            with pytest.raises(Busy):
                ours.fetch(sha256(PHOTO), 0, 10)
        till.session.close()


@pytest.mark.parametrize(
    "media",
    [
        "photos",
        "s3://",
        "http://127.0.0.1/photos",
        "s3://photos?endpoint=ftp://127.0.0.1",
        "s3://photos?endpoint=http://10.0.0.1",
        "s3://photos?endpoint=https://key:secret@10.0.0.1",
        "s3://photos?redirect=soon",
        "s3://photos?redirect=999999",
        "s3://photos?other=1",
    ],
)
def test_a_place_that_is_none_is_said_before_anything_is_made(tmp_path, media):
    with pytest.raises(ConfigurationInvalid):
        open_store(Settings(data=tmp_path / "server", media=media))
    assert not (tmp_path / "server").exists()


def test_a_bucket_that_there_is_not_is_said_at_the_start_and_one_that_is_silent_may_come(
    tmp_path, buckets, between, credentials
):
    with pytest.raises(ConfigurationInvalid):
        open_store(Settings(data=tmp_path, media=f"s3://nothing-here?endpoint={buckets}"))
    between.rule = lambda request, pass_on: SLOW_DOWN
    open_store(Settings(data=tmp_path, media=f"s3://photos?endpoint={between.url}"))


class Killed(BaseException):
    """The process is gone: nothing in it may catch this."""


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("create_multipart_upload", 1),
        ("upload_part", 1),
        ("upload_part", 2),
        ("complete_multipart_upload", 1),
        ("copy", 1),
        ("abort_multipart_upload", 1),
        ("delete_object", 1),
    ],
)
def test_a_server_that_dies_at_any_step_of_the_bucket_goes_on_and_nothing_partial_is_seen(
    tmp_path, buckets, credentials, call, number
):
    """The order is the intake's: bytes, sync, the offset that promises them, and then they may move."""
    settings = Settings(data=tmp_path, media=f"s3://photos/{tmp_path.name}?endpoint={buckets}")
    content, promised = sha256(FILM), [0]

    def go_on(dies: bool) -> None:
        store = open_store(settings)
        if dies:
            die_after(store._client, call, number)
        while promised[0] < len(FILM):
            with closing(store.append("one", len(FILM), promised[0], None)) as tail:
                tail.write(FILM[promised[0] : promised[0] + CHUNK])
                tail.sync()
                promised[0] = tail.position
                tail.settle()
        if (whole := store.whole("one", len(FILM))) is not None:
            with closing(whole):
                assert b"".join(whole) == FILM
            store.publish("one", len(FILM), "shop", content)
        assert store.size("shop", content) is not None
        store.discard("one")

    open_store(settings).begin("one", len(FILM))
    with pytest.raises(Killed):
        go_on(dies=True)
    store = open_store(settings)
    if store.size("shop", content) is not None:
        with closing(store.read("shop", content, 0, len(FILM))) as read:
            assert b"".join(read) == FILM
    go_on(dies=False)
    go_on(dies=False)
    with closing(store.read("shop", content, 0, len(FILM))) as read:
        assert b"".join(read) == FILM
    assert list((tmp_path / "media" / "parts").iterdir()) == []
    listed = bucket(buckets).list_objects_v2(Bucket="photos", Prefix=f"{tmp_path.name}/")["Contents"]
    assert [one["Key"].rpartition("/")[2] for one in listed] == [content]


def die_after(client: Any, call: str, number: int) -> None:
    original, calls = getattr(client, call), 0

    def deadly(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        try:
            return original(*given, **named)
        finally:
            if calls == number:
                raise Killed

    setattr(client, call, deadly)
