"""What an operator allows: bytes for each scope, types of files, and who may complete an upload."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import Engine, event

from backhaul.database import open_database
from backhaul.errors import ConfigurationInvalid
from backhaul.server import auth, uploads
from backhaul.server.media_types import Policy
from tests import services
from tests.unit.server.conftest import Caller, SetClock, problem
from tests.unit.server.test_media import DAY_MS, PHOTO, TUS, HalfSent, coded, create, offset, patch, sha256
from tests.waiting import eventually

JPEG = b"\xff\xd8\xff\xe0" + os.urandom(2**20)
PNG = b"\x89PNG\r\n\x1a\n" + os.urandom(1000)
QUOTA = 3 * 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, clock: SetClock) -> Iterator[services.SyncServer]:
    allowed = ("image/*", "application/pdf")
    with services.sync_server(
        tmp_path_factory.mktemp("server"), clock=clock, media_quota=QUOTA, media_types=allowed
    ) as running:
        yield running


def made(till: Caller, data: bytes, media_type: str = "image/jpeg", promised: bytes | None = None):
    told = coded(sha256=sha256(promised or data), filename="a", filetype=media_type)
    return create(till, data, **{"Upload-Metadata": told})


def brought(till: Caller, data: bytes, media_type: str = "image/jpeg") -> None:
    assert patch(till, made(till, data, media_type).headers["Location"], 0, data).status_code == 204


def test_a_scope_has_no_more_room_than_its_quota(till, server, clock):
    brought(till, JPEG)
    waiting = made(till, b"x" * (QUOTA - len(JPEG)))
    assert waiting.status_code == 201
    over = made(till, PNG, "image/png")
    assert problem(over) == (507, "quota-exceeded")
    assert over.json()["limit"] == QUOTA
    stranger = Caller(server, scope="another scope")
    assert made(stranger, PNG, "image/png").status_code == 201
    stranger.session.close()
    assert till.call("DELETE", waiting.headers["Location"], headers=TUS).status_code == 204
    brought(till, PNG, "image/png")


def test_of_many_that_are_announced_at_once_no_more_are_let_in_than_there_is_room_for(till):
    headers = {"Authorization": str(till.session.headers["Authorization"]), "Upload-Length": str(QUOTA // 3)}
    headers |= TUS | {"Upload-Metadata": coded(filetype="image/jpeg")}

    def announce(_number: int) -> int:
        return requests.post(till.server.url + "/v1/media", headers=headers, timeout=20).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(announce, range(8))) == [201] * 3 + [507] * 5


def test_what_the_scope_has_already_costs_it_nothing(till):
    brought(till, JPEG)
    assert made(till, b"x" * (QUOTA - len(JPEG))).status_code == 201
    assert made(till, b"y").status_code == 507
    brought(till, JPEG)


def test_whoever_names_what_the_scope_has_announces_no_more_than_that(till):
    """A length that lies would be room for anything, until the hash is found to be another."""
    brought(till, JPEG)
    assert problem(made(till, b"x" * (QUOTA + 1), promised=JPEG)) == (507, "quota-exceeded")


def test_expired_uploads_are_forgotten_in_one_statement(till, server, clock, monkeypatch):
    clock.ahead += 30 * DAY_MS
    made(till, PHOTO[:1])
    for _ in range(5):
        made(till, b"x")
    clock.ahead += 30 * DAY_MS
    seen: list[str] = []

    def watch(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "DELETE FROM server_upload" in statement:
            seen.append(statement)

    event.listen(Engine, "before_cursor_execute", watch)
    try:
        made(till, b"y")
    finally:
        event.remove(Engine, "before_cursor_execute", watch)
    assert len(seen) == 1


def test_what_was_refused_leaves_nothing_on_the_disk(till, server):
    before = sorted((server.settings.data / "media" / "uploads").iterdir())
    assert problem(made(till, b"x" * (QUOTA + 1))) == (507, "quota-exceeded")
    assert sorted((server.settings.data / "media" / "uploads").iterdir()) == before


def test_what_expires_makes_room(till, clock):
    assert made(till, b"x" * QUOTA).status_code == 201
    assert made(till, JPEG).status_code == 507
    clock.ahead += 8 * DAY_MS
    brought(till, JPEG)


@pytest.mark.parametrize(
    ("media_type", "taken"),
    [
        ("image/jpeg", True),
        ("IMAGE/JPEG", True),
        ("application/pdf", True),
        ("image/svg+xml", False),
        ("text/html", False),
        ("application/pdfx", False),
        ("", False),
    ],
)
def test_only_listed_types_are_taken(till, media_type, taken):
    answer = made(till, b"x", media_type)
    assert answer.status_code == 201 if taken else problem(answer) == (415, "media-type-forbidden")


@pytest.mark.parametrize(
    ("media_type", "data"),
    [("image/jpeg", PNG), ("image/png", JPEG), ("image/png", b"<html><script>alert(1)</script>"), ("image/gif", b"")],
)
def test_an_image_must_begin_like_one(till, media_type, data):
    answer = made(till, data, media_type)
    if data:
        answer = patch(till, answer.headers["Location"], 0, data)
    assert problem(answer) == (422, "media-type-mismatch")
    assert till.call("HEAD", f"/v1/media/sha256/{sha256(data)}").status_code == 404


@pytest.mark.parametrize(
    ("media_type", "start"),
    [
        ("image/png", PNG),
        ("image/jpeg", JPEG),
        ("image/gif", b"GIF89a"),
        ("image/webp", b"RIFF\n\n\n\nWEBPVP8 "),
        ("image/bmp", b"BM6"),
        ("image/tiff", b"MM\0*\0"),
        ("image/heic", b"\0\0\0\x18ftypheic"),
        ("image/avif", b"\0\0\0\x1cftypavif"),
        ("application/pdf", b"whatever"),
    ],
)
def test_the_beginnings_of_images_are_known(media_type, start):
    policy = Policy(("image/*", "application/*"))
    policy.check_declared(media_type)
    policy.check_bytes(media_type, start)


def test_svg_is_taken_where_it_is_named():
    Policy(("image/svg+xml",)).check_declared("image/svg+xml")


@pytest.mark.parametrize("wrong", ["image", "*/*", "image/*/x", "Image/*", ""])
def test_a_type_that_is_none_is_said_at_the_start(tmp_path: Path, wrong: str):
    with pytest.raises(ConfigurationInvalid), services.sync_server(tmp_path, media_types=(wrong,)):
        raise AssertionError("it started")


def test_contents_run_nothing_where_they_are_shown(till):
    brought(till, PNG, "image/png")
    headers = till.call("GET", f"/v1/media/sha256/{sha256(PNG)}").headers
    assert headers["Content-Disposition"].startswith("attachment")
    assert "sandbox" in headers["Content-Security-Policy"]


def test_who_was_revoked_on_the_way_completes_nothing(till, other_till, server):
    address = made(till, JPEG).headers["Location"]
    sending = HalfSent(till, address, JPEG[:-1], len(JPEG))
    with closing(open_database(server.settings.url)) as database:
        file = server.settings.data / "media" / "uploads" / address.rpartition("/")[2]
        eventually(lambda: file.stat().st_size, what="the request was let in, and its first bytes are here")
        with database.writing() as connection:
            assert auth.revoke(connection, till.registered["replica"], server.clock.now())
        sending.socket.sendall(JPEG[-1:])
        assert sending.status() == 403
        with database.reading() as connection:
            assert uploads.known(connection, till.registered["scope"], [sha256(JPEG)]) == []
    assert problem(patch(till, address, len(JPEG), b"")) == (403, "replica-revoked")
    assert other_till.call("HEAD", f"/v1/media/sha256/{sha256(JPEG)}").status_code == 404
    assert offset(other_till, address) == len(JPEG)
    assert other_till.call("GET", f"/v1/media/sha256/{sha256(JPEG)}").content == JPEG


def test_expired_uploads_go_a_thousand_at_a_time_until_none_is_left(till, server, clock, monkeypatch):
    monkeypatch.setattr(uploads, "AT_ONCE", 2)
    clock.ahead += 30 * DAY_MS
    made(till, PHOTO[:1])
    old = [made(till, b"x").headers["Location"].rpartition("/")[2] for _ in range(5)]
    clock.ahead += 30 * DAY_MS
    for _ in range(6):
        made(till, JPEG)
    assert not {path.name for path in (server.settings.data / "media" / "uploads").iterdir()} & set(old)
