"""Parts of a file, sent beside each other, and the file that is made of them (tus, "Concatenation")."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_hex

import pytest
import requests

from backhaul.server.contents import s3
from tests import services
from tests.unit.server.conftest import Caller, SetClock, problem
from tests.unit.server.test_media import DAY_MS, TUS, coded, offset, patch, sha256

FILM = os.urandom(11 * 2**20 + 7)
PART = 5 * 2**20


@pytest.fixture(params=["disk", "bucket"])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[services.SyncServer]:
    media = None
    if request.param == "bucket":
        request.getfixturevalue("credentials")
        monkeypatch.setattr(s3, "PART", PART)
        media = f"s3://photos/{token_hex(8)}?endpoint={request.getfixturevalue('buckets')}"
    with services.sync_server(tmp_path / "server", clock=clock, media=media, most_upload=64 * 2**20) as running:
        yield running


def part(till: Caller, data: bytes) -> str:
    said = TUS | {"Upload-Length": str(len(data)), "Upload-Concat": "partial"}
    answer = till.call("POST", "/v1/media", headers=said)
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


def whole_part(till: Caller, data: bytes) -> str:
    address = part(till, data)
    if data:
        assert patch(till, address, 0, data).status_code == 204
    return address


def final(till: Caller, addresses: list[str], data: bytes, **headers: str) -> requests.Response:
    said = {"Upload-Concat": "final;" + " ".join(addresses), "Upload-Metadata": coded(sha256=sha256(data))}
    return till.call("POST", "/v1/media", headers=TUS | said | headers)


def has(till: Caller, data: bytes) -> bool:
    return till.call("HEAD", f"/v1/media/sha256/{sha256(data)}").status_code == 200


def test_parts_that_came_beside_each_other_become_one_file(till, server):
    pieces = [FILM[: 8 * 2**20], FILM[8 * 2**20 : 8 * 2**20 + 1], b"", FILM[8 * 2**20 + 1 :]]
    with ThreadPoolExecutor(3) as pool:
        addresses = list(pool.map(lambda piece: whole_part(till, piece), pieces))
    assert not any(has(till, piece) for piece in pieces)
    made = final(till, addresses, FILM)
    assert (made.status_code, made.headers["Upload-Offset"]) == (201, str(len(FILM)))
    assert till.call("GET", f"/v1/media/sha256/{sha256(FILM)}").content == FILM
    asked = till.call("HEAD", made.headers["Location"], headers=TUS)
    assert asked.headers["Upload-Concat"] == "final;" + " ".join(addresses)
    assert (asked.headers["Upload-Length"], asked.headers["Upload-Offset"]) == (str(len(FILM)), str(len(FILM)))
    assert till.call("HEAD", addresses[0], headers=TUS).headers["Upload-Concat"] == "partial"


def test_a_part_may_stand_twice_and_in_a_whole_address(till, server):
    address = whole_part(till, b"ab")
    assert final(till, [address, server.url + address], b"abab").status_code == 201
    assert has(till, b"abab")


def test_parts_must_be_whole_and_parts(till):
    open_part, good = part(till, b"abc"), whole_part(till, b"x")
    patch(till, open_part, 0, b"ab")
    assert problem(final(till, [good, open_part], b"xabc")) == (409, "parts-unfinished")
    ordinary = till.call("POST", "/v1/media", headers=TUS | {"Upload-Length": "0"}).headers["Location"]
    assert problem(final(till, [good, ordinary], b"x")) == (409, "parts-unfinished")
    assert patch(till, open_part, 2, b"c").status_code == 204
    assert final(till, [good, open_part], b"xabc").status_code == 201


def test_a_final_upload_takes_no_bytes(till):
    address = final(till, [whole_part(till, b"x")], b"x").headers["Location"]
    assert problem(patch(till, address, 1, b"")) == (403, "upload-final")
    chunk = {"Content-Type": "application/offset+octet-stream"}
    said = TUS | chunk | {"Upload-Concat": f"final;{whole_part(till, b'y')}"}
    assert problem(till.call("POST", "/v1/media", data=b"z", headers=said)) == (403, "upload-final")


def test_a_broken_promise_leaves_the_parts_alone(till, server):
    address = whole_part(till, b"x")
    assert problem(final(till, [address], b"y")) == (422, "content-mismatch")
    assert not has(till, b"x")
    assert offset(till, address) == 1
    assert final(till, [address], b"x").status_code == 201


def test_parts_of_others_and_expired_ones_are_not_found(till, server, clock):
    address = whole_part(till, b"x")
    stranger = Caller(server, scope="another scope")
    assert problem(final(stranger, [address], b"x")) == (404, "not-found")
    stranger.session.close()
    clock.ahead += 8 * DAY_MS
    assert problem(final(till, [address], b"x")) == (404, "not-found")


def test_more_than_an_upload_may_have_is_refused(till, server):
    address = whole_part(till, FILM)
    assert problem(final(till, [address] * 6, b"")) == (413, "upload-too-large")


@pytest.mark.parametrize(
    "said",
    ["final;", "final", "other", "partial;x", "final;/v1/other/x", "final;../x", "final;" + "/v1/media/x " * 1001],
)
def test_what_cannot_be_read_is_malformed(till, said):
    answer = till.call("POST", "/v1/media", headers=TUS | {"Upload-Length": "1", "Upload-Concat": said})
    assert problem(answer) == (400, "malformed")
