"""Many small contents in one request: each is judged by itself, and what was taken is content."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from sqlalchemy import text

from backhaul.database import open_database
from backhaul.errors import Busy
from backhaul.server.contents.disk import DiskStore
from backhaul.server.settings import Settings
from backhaul.wire import CONTENTS_TYPE, NewContent, packed
from tests import services
from tests.unit.server.conftest import Caller, SetClock, problem
from tests.unit.server.test_media import sha256

PNG = b"\x89PNG\r\n\x1a\n"
QUOTA = 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, clock: SetClock) -> Iterator[services.SyncServer]:
    allowed = ("image/png", "text/plain")
    with services.sync_server(
        tmp_path_factory.mktemp("server"), clock=clock, media_quota=QUOTA, media_types=allowed
    ) as running:
        yield running


def told(data: bytes, *, promised: str | None = None, **said: Any) -> tuple[NewContent, bytes]:
    return NewContent(sha256=promised or sha256(data), size=len(data), **({"media_type": "text/plain"} | said)), data


def send(till: Caller, body: bytes, media_type: str = CONTENTS_TYPE) -> requests.Response:
    return till.call("POST", "/v1/media/contents", data=body, headers={"Content-Type": media_type})


def outcomes(answer: requests.Response) -> list[str | None]:
    assert answer.status_code == 200, answer.text
    return [one and one["type"].rsplit("/", 1)[1] for one in answer.json()["problems"]]


def content(till: Caller, data: bytes) -> requests.Response:
    return till.call("GET", f"/v1/media/sha256/{sha256(data)}")


def test_what_was_sent_is_there_with_its_name_and_type(till: Caller) -> None:
    one, other = os.urandom(500), b""
    assert outcomes(send(till, packed([told(one, name="größe.txt"), told(other)]))) == [None, None]
    assert content(till, one).content == one
    assert "gr%C3%B6%C3%9Fe.txt" in content(till, one).headers["Content-Disposition"]
    assert content(till, other).content == b""


def test_each_is_judged_by_itself(till: Caller) -> None:
    good, png = os.urandom(10), PNG + os.urandom(10)
    sent = [
        told(good),
        told(b"other bytes", promised=sha256(b"than promised")),
        told(b"a film", media_type="video/mp4"),
        told(b"no png", media_type="image/png"),
        told(png, media_type="image/png"),
    ]
    found = [None, "content-mismatch", "media-type-forbidden", "media-type-mismatch", None]
    assert outcomes(send(till, packed(sent))) == found
    assert [content(till, data).status_code for _, data in sent] == [200, 404, 404, 404, 200]
    assert content(till, b"than promised").status_code == 404


def test_what_the_quota_has_no_room_for_is_left_out(server: services.SyncServer) -> None:
    till = Caller(server, scope="small quota")
    large, small = os.urandom(QUOTA - 100), os.urandom(200)
    assert outcomes(send(till, packed([told(large), told(small), told(b"tiny")]))) == [None, "quota-exceeded", None]
    assert outcomes(send(till, packed([told(large), told(small)]))) == [None, "quota-exceeded"]  # what is there is free
    till.session.close()


def test_the_contents_of_another_scope_are_not_here(server: services.SyncServer, till: Caller) -> None:
    data = os.urandom(50)
    stranger = Caller(server, scope="stranger")
    assert outcomes(send(stranger, packed([told(data)]))) == [None]
    stranger.session.close()
    assert content(till, data).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0",
        b"\xff\xff\xff\xff{}",
        packed([told(b"whole")])[:-1],
        packed([told(b"whole")]) + b"!",
        b'\0\0\0\x0f{"contents":[1]}',
        packed([told(b"x", promised="../../etc/passwd")]),
    ],
)
def test_a_body_that_is_not_whole_is_refused_and_nothing_is_kept(till: Caller, body: bytes) -> None:
    assert problem(send(till, body)) == (400, "malformed")
    assert content(till, b"whole").status_code == 404


def test_other_kinds_of_bodies_are_refused(till: Caller) -> None:
    assert problem(send(till, packed([told(b"x")]), "application/json")) == (415, "unsupported-media-type")


def test_a_failure_leaves_neither_bytes_nor_a_claim_on_the_quota(
    server: services.SyncServer, till: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, put_all = os.urandom(60), DiskStore.put_all

    def busy(store: DiskStore, scope: str, small: Any) -> None:
        for whole in small.values():
            (store._uploads / whole.upload).write_bytes(b"half")
        raise Busy("later")

    monkeypatch.setattr(DiskStore, "put_all", busy)
    assert problem(send(till, packed([told(data)]))) == (503, "busy")
    monkeypatch.setattr(DiskStore, "put_all", put_all)
    assert content(till, data).status_code == 404
    assert _names(server.settings) == []
    assert outcomes(send(till, packed([told(data)]))) == [None]
    assert _names(server.settings) == []


def _names(settings: Settings) -> list[str]:
    """Of what is on its way: on the disk, and in the database."""
    database = open_database(settings.url)
    with database.reading() as connection:
        rows = list(connection.execute(text("SELECT id FROM server_upload")).scalars())
    database.close()
    return rows + [path.name for path in (settings.data / "media" / "uploads").iterdir()]
