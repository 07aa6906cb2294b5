"""Uploads by tus 1.0.0: the details that implementations miss, dead connections, and what lies on the disk."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from sqlalchemy import text

from backhaul.database import open_database
from backhaul.errors import DatabaseBusy
from backhaul.remotes.tus import TusRemote
from backhaul.server import receiving, uploads
from backhaul.server.contents import disk
from backhaul.server.contents.disk import DiskStore
from backhaul.server.media import THREADS
from tests.unit.server.conftest import Caller, problem
from tests.waiting import eventually

TUS = {"Tus-Resumable": "1.0.0"}
CHUNK = TUS | {"Content-Type": "application/offset+octet-stream"}
PHOTO = os.urandom(300_000)
DAY_MS = 86_400_000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def coded(**values: str) -> str:
    return ",".join(f"{name} {b64encode(value.encode()).decode()}" for name, value in values.items())


def checksum(data: bytes, algorithm: str = "sha256") -> dict[str, str]:
    return {"Upload-Checksum": f"{algorithm} {b64encode(hashlib.new(algorithm, data).digest()).decode()}"}


def create(till: Caller, data: bytes = PHOTO, **headers: str) -> requests.Response:
    said = {
        "Upload-Length": str(len(data)),
        "Upload-Metadata": coded(sha256=sha256(data), filename="photo.jpg", filetype="image/jpeg"),
    }
    return till.call("POST", "/v1/media", headers=TUS | said | headers)


def patch(till: Caller, address: str, at: int, data: bytes, **headers: str) -> requests.Response:
    return till.call("PATCH", address, data=data, headers=CHUNK | {"Upload-Offset": str(at)} | headers)


def offset(till: Caller, address: str) -> int:
    answer = till.call("HEAD", address, headers=TUS)
    assert answer.status_code == 200
    return int(answer.headers["Upload-Offset"])


@pytest.fixture
def address(till) -> str:
    answer = create(till)
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


def test_our_own_client_uploads_in_chunks(server, till):
    remote = TusRemote(server.url, till.registered["token"])
    assert not remote.has(sha256(PHOTO))
    upload = remote.create(size=len(PHOTO), sha256=sha256(PHOTO), name="photo.jpg", media_type="image/jpeg")
    assert remote.append(upload, 0, PHOTO[:100_000]) == 100_000
    assert remote.sent(upload) == 100_000
    assert remote.append(upload, 100_000, PHOTO[100_000:]) == len(PHOTO)
    assert remote.has(sha256(PHOTO))
    remote.close()


def test_what_the_server_can_do_is_told_to_anyone(server):
    answer = requests.options(server.url + "/v1/media", timeout=20)
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert (
        answer.headers["Tus-Extension"] == "creation,creation-with-upload,checksum,expiration,termination,concatenation"
    )
    assert answer.headers["Tus-Max-Size"] == str(64 * 2**20)
    assert answer.headers["Tus-Checksum-Algorithm"] == "sha1,sha256"


def test_a_new_upload_says_where_it_is_and_how_far_and_until_when(till):
    answer = create(till)
    assert answer.status_code == 201
    assert answer.headers["Location"].startswith("/v1/media/")
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert answer.headers["Upload-Expires"].endswith("GMT")
    asked = till.call("HEAD", answer.headers["Location"], headers=TUS)
    assert (asked.headers["Upload-Offset"], asked.headers["Upload-Length"]) == ("0", str(len(PHOTO)))
    assert asked.headers["Cache-Control"] == "no-store"
    assert "filename" in asked.headers["Upload-Metadata"]


def test_bytes_are_added_where_the_upload_stands(till, address):
    first = patch(till, address, 0, PHOTO[:1000])
    assert (first.status_code, first.headers["Upload-Offset"], first.text) == (204, "1000", "")
    assert problem(patch(till, address, 0, PHOTO[:1000])) == (409, "offset-mismatch")
    assert problem(patch(till, address, 2000, PHOTO[2000:])) == (409, "offset-mismatch")
    last = patch(till, address, 1000, PHOTO[1000:])
    assert parsedate_to_datetime(last.headers["Upload-Expires"])
    got = till.call("GET", f"/v1/media/sha256/{sha256(PHOTO)}")
    assert (got.content == PHOTO, got.headers["Content-Type"]) == (True, "image/jpeg")
    assert (got.headers["ETag"], got.headers["X-Content-Type-Options"]) == (f'"{sha256(PHOTO)}"', "nosniff")
    assert got.headers["Content-Disposition"] == 'attachment; filename="photo.jpg"'
    assert offset(till, address) == len(PHOTO)
    assert patch(till, address, len(PHOTO), b"").status_code == 204


def test_content_comes_in_ranges(till, address):
    patch(till, address, 0, PHOTO)
    got = till.call("GET", f"/v1/media/sha256/{sha256(PHOTO)}", headers={"Range": "bytes=10-19"})
    assert (got.status_code, got.content) == (206, PHOTO[10:20])
    assert till.call("HEAD", f"/v1/media/sha256/{sha256(PHOTO)}").headers["Content-Length"] == str(len(PHOTO))


@pytest.mark.parametrize(
    ("said", "start", "stop"),
    [
        ("bytes=-5", -5, None),
        ("bytes=299990-", -10, None),
        ("bytes=0-999999", 0, None),
        ("bytes=299999-299999", -1, None),
    ],
)
def test_a_range_may_be_open_on_either_side_or_end_beyond(till, address, said, start, stop):
    patch(till, address, 0, PHOTO)
    got = till.call("GET", f"/v1/media/sha256/{sha256(PHOTO)}", headers={"Range": said})
    assert got.content == PHOTO[start:stop]
    assert got.status_code == (200 if len(got.content) == len(PHOTO) else 206)


def test_what_has_no_ranges_is_answered_with_the_whole(till, address):
    """RFC 9110, 14.2: only GET has them, and an unknown unit is ignored."""
    patch(till, address, 0, PHOTO)
    where = f"/v1/media/sha256/{sha256(PHOTO)}"
    asked = till.call("HEAD", where, headers={"Range": "bytes=0-9"})
    assert (asked.status_code, asked.headers["Content-Length"]) == (200, str(len(PHOTO)))
    got = till.call("GET", where, headers={"Range": "lines=0-9"})
    assert (got.status_code, got.content) == (200, PHOTO)


def test_several_ranges_are_answered_with_the_whole(till, address):
    patch(till, address, 0, PHOTO)
    got = till.call("GET", f"/v1/media/sha256/{sha256(PHOTO)}", headers={"Range": "bytes=0-1,5-6"})
    assert (got.status_code, got.content) == (200, PHOTO)


def test_a_range_of_another_content_is_the_whole_and_what_is_there_already_is_not_sent(till, address):
    patch(till, address, 0, PHOTO)
    where = f"/v1/media/sha256/{sha256(PHOTO)}"
    other = till.call("GET", where, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, PHOTO)
    same = till.call("GET", where, headers={"Range": "bytes=0-1", "If-Range": f'"{sha256(PHOTO)}"'})
    assert (same.status_code, same.content) == (206, PHOTO[:2])
    known = till.call("GET", where, headers={"If-None-Match": f'"{sha256(PHOTO)}"'})
    assert (known.status_code, known.content) == (304, b"")


def test_a_content_whose_file_is_lost_is_not_found(till, address, server):
    patch(till, address, 0, PHOTO)
    (file,) = (server.settings.data / "media" / "content" / sha256(till.registered["scope"].encode())).iterdir()
    file.unlink()
    assert problem(till.call("GET", f"/v1/media/sha256/{sha256(PHOTO)}")) == (404, "not-found")


def test_an_upload_for_which_there_is_no_room_is_refused_before_its_bytes(till, monkeypatch):
    monkeypatch.setattr(DiskStore, "free", lambda _store: len(PHOTO) - 1)
    assert problem(create(till)) == (507, "storage-full")
    monkeypatch.setattr(DiskStore, "free", lambda _store: len(PHOTO))
    assert create(till).status_code == 201


@pytest.mark.parametrize("method", ["POST", "HEAD", "PATCH", "DELETE"])
@pytest.mark.parametrize("version", [{}, {"Tus-Resumable": "0.2.2"}])
def test_another_version_of_tus_is_not_processed(till, address, method, version):
    answer = till.call(method, "/v1/media" if method == "POST" else address, headers=version | {"Upload-Length": "1"})
    assert (answer.status_code, answer.headers["Tus-Version"]) == (412, "1.0.0")
    assert offset(till, address) == 0


def test_compressed_bytes_are_not_taken_for_the_file(till: Caller) -> None:
    address = create(till).headers["Location"]
    coded_as = {"Upload-Offset": "0", "Content-Encoding": "gzip"}
    answer = till.call("PATCH", address, data=PHOTO, headers=CHUNK | coded_as)
    assert problem(answer) == (415, "unsupported-coding")


def test_the_content_type_of_bytes_is_checked(till, address):
    answer = till.call("PATCH", address, data=b"x", headers=TUS | {"Upload-Offset": "0", "Content-Type": "image/jpeg"})
    assert problem(answer) == (415, "unsupported-media-type")
    answer = till.call(
        "POST", "/v1/media", data=b"x", headers=TUS | {"Upload-Length": "1", "Content-Type": "image/jpeg"}
    )
    assert problem(answer) == (415, "unsupported-media-type")


@pytest.mark.parametrize("said", [{}, {"Upload-Length": "-1"}, {"Upload-Length": "1e3"}, {"Upload-Defer-Length": "1"}])
def test_a_length_must_be_told(till, said):
    assert problem(till.call("POST", "/v1/media", headers=TUS | said)) == (400, "malformed")


@pytest.mark.parametrize("at", [None, "", "-1", "x"])
def test_an_offset_must_be_told(till, address, at):
    headers = CHUNK if at is None else CHUNK | {"Upload-Offset": at}
    assert problem(till.call("PATCH", address, data=b"x", headers=headers)) == (400, "malformed")


def test_an_upload_beyond_the_limit_is_refused(till):
    answer = till.call("POST", "/v1/media", headers=TUS | {"Upload-Length": str(64 * 2**20 + 1)})
    assert problem(answer) == (413, "upload-too-large")


@pytest.mark.parametrize("chunked", [False, True])
def test_more_bytes_than_were_announced_are_refused_and_none_is_kept(till, address, chunked):
    data: Any = iter([PHOTO, b"x"]) if chunked else PHOTO + b"x"
    assert problem(patch(till, address, 0, data)) == (413, "upload-too-large")
    assert offset(till, address) == 0


@pytest.mark.parametrize(
    "metadata",
    [
        "sha256 " + b64encode(b"xyz").decode(),
        "filename !!",
        "filename YQ==,filename YQ==",
        ",",
        "filename " + b64encode(b"\xff").decode(),
    ],
)
def test_metadata_that_cannot_be_used_is_refused(till, metadata):
    answer = till.call("POST", "/v1/media", headers=TUS | {"Upload-Length": "1", "Upload-Metadata": metadata})
    assert problem(answer) == (400, "metadata-invalid")


# ------------------------------------------------------------------------------------------------------- checksums


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_chunk_that_is_what_its_checksum_says_is_kept(till, address, algorithm):
    assert patch(till, address, 0, PHOTO[:5000], **checksum(PHOTO[:5000], algorithm)).status_code == 204
    assert offset(till, address) == 5000


def test_a_chunk_that_is_not_is_thrown_away(till, address):
    answer = patch(till, address, 0, PHOTO[:5000], **checksum(b"other"))
    assert problem(answer) == (460, "checksum-mismatch")
    assert offset(till, address) == 0
    assert patch(till, address, 0, PHOTO).status_code == 204


def test_an_unknown_algorithm_is_refused(till, address):
    answer = patch(till, address, 0, PHOTO[:5000], **{"Upload-Checksum": "md5 AAAA"})
    assert problem(answer) == (400, "checksum-unsupported")
    assert offset(till, address) == 0


def test_content_that_is_not_what_was_promised_is_discarded(till):
    made = create(till, **{"Upload-Metadata": coded(sha256=sha256(b"something else"))})
    address = made.headers["Location"]
    assert problem(patch(till, address, 0, PHOTO)) == (422, "content-mismatch")
    assert till.call("HEAD", address, headers=TUS).status_code == 404
    assert till.call("HEAD", f"/v1/media/sha256/{sha256(PHOTO)}").status_code == 404


# --------------------------------------------------------------------------------- creation with upload, empty ones


def test_bytes_may_come_with_the_creation(till):
    headers = (
        CHUNK | checksum(PHOTO) | {"Upload-Length": str(len(PHOTO)), "Upload-Metadata": coded(sha256=sha256(PHOTO))}
    )
    answer = till.call("POST", "/v1/media", data=PHOTO, headers=headers)
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, str(len(PHOTO)))
    assert till.call("HEAD", f"/v1/media/sha256/{sha256(PHOTO)}").status_code == 200


def test_some_of_the_bytes_may_come_with_the_creation(till):
    answer = till.call("POST", "/v1/media", data=PHOTO[:10], headers=CHUNK | {"Upload-Length": str(len(PHOTO))})
    assert answer.headers["Upload-Offset"] == "10"
    assert patch(till, answer.headers["Location"], 10, PHOTO[10:]).status_code == 204


def test_an_empty_upload_is_complete_at_its_creation(till):
    answer = create(till, b"")
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, "0")
    assert till.call("GET", f"/v1/media/sha256/{sha256(b'')}").content == b""


# ----------------------------------------------------------------------------------------- ends, expiry, other methods


def test_which_contents_are_here_is_told_of_up_to_a_thousand_at_once(till, other_till, server):
    create(till, b"x")
    for data in (b"a", b"b"):
        assert patch(till, create(till, data).headers["Location"], 0, data).status_code == 204
    never = [sha256(b"%d" % number) for number in range(997)]
    asked = {"hashes": [sha256(b"a"), *never, sha256(b"x"), sha256(b"b")]}
    answer = other_till.call("POST", "/v1/media/known", asked)
    assert (answer.status_code, sorted(answer.json()["hashes"])) == (200, sorted([sha256(b"a"), sha256(b"b")]))
    stranger = Caller(server, scope="another scope")
    assert stranger.call("POST", "/v1/media/known", asked).json() == {"hashes": []}
    stranger.session.close()


@pytest.mark.parametrize("hashes", [["A" * 64], ["a" * 63], [None], ["a" * 64 + "\n"], "a" * 64, [["a" * 64]]])
def test_a_question_for_what_is_no_hash_is_malformed(till, hashes):
    assert problem(till.call("POST", "/v1/media/known", {"hashes": hashes})) == (400, "malformed")


def test_a_question_for_too_many_contents_is_refused_with_the_limit(till):
    answer = till.call("POST", "/v1/media/known", {"hashes": ["a" * 64] * 1_001})
    assert problem(answer) == (413, "batch-too-large")
    assert answer.json()["limit"] == 1_000


def test_a_question_of_nobody_is_not_answered(server):
    answer = requests.post(server.url + "/v1/media/known", json={"hashes": []}, timeout=20)
    assert problem(answer) == (401, "token-invalid")


def test_a_terminated_upload_is_gone(till, address, server):
    assert till.call("DELETE", address, headers=TUS).status_code == 204
    for method in ("HEAD", "DELETE"):
        gone = till.call(method, address, headers=TUS)
        assert (gone.status_code, "Upload-Offset" in gone.headers) == (404, False)
    assert problem(patch(till, address, 0, PHOTO)) == (404, "not-found")
    assert not (server.settings.data / "media" / "uploads" / address.rpartition("/")[2]).exists()


def test_clients_that_cannot_say_patch_may_say_so_in_a_header(till, address):
    headers = CHUNK | {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert till.call("POST", address, data=PHOTO[:10], headers=headers).headers["Upload-Offset"] == "10"
    assert problem(till.call("POST", address, headers=TUS)) == (405, "method-not-allowed")


def test_an_upload_expires_and_its_bytes_are_removed(till, address, server, clock):
    patch(till, address, 0, PHOTO[:10])
    clock.ahead += 8 * DAY_MS
    gone = till.call("HEAD", address, headers=TUS)
    assert (gone.status_code, "Upload-Offset" in gone.headers) == (410, False)
    create(till)
    assert till.call("HEAD", address, headers=TUS).status_code == 404
    assert not (server.settings.data / "media" / "uploads" / address.rpartition("/")[2]).exists()


def test_other_scopes_see_neither_uploads_nor_content(till, address, server):
    stranger = Caller(server, scope="another scope")
    assert stranger.call("HEAD", address, headers=TUS).status_code == 404
    assert patch(stranger, address, 0, PHOTO).status_code == 404
    assert stranger.call("DELETE", address, headers=TUS).status_code == 404
    patch(till, address, 0, PHOTO)
    assert stranger.call("GET", f"/v1/media/sha256/{sha256(PHOTO)}").status_code == 404
    stranger.session.close()


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a\0b", "C:\\x", "\u202egpj.exe", 'a"; x="', "x" * 5000, "ä\r\nSet-Cookie: a=b"]
)
def test_a_name_is_never_a_path_and_never_a_header(till, server, name):
    data = name.encode()
    made = create(till, data, **{"Upload-Metadata": coded(filename=name, filetype="text/html\r\nX: y")})
    assert patch(till, made.headers["Location"], 0, data).status_code == 204
    got = till.call("GET", f"/v1/media/sha256/{sha256(data)}")
    assert (got.content, got.headers["Content-Type"]) == (data, "application/octet-stream")
    assert got.headers["Content-Disposition"].startswith("attachment")
    assert "Set-Cookie" not in got.headers
    assert all(len(path.name) <= 64 for path in (server.settings.data / "media").rglob("*"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("../../etc/passwd", 'filename="passwd"'),
        ("C:\\Windows\\x.exe", 'filename="x.exe"'),
        ("photos/", 'filename="{hash}"'),
        ("\u202egpj.exe", "filename*=utf-8''%E2%80%AEgpj.exe"),
    ],
)
def test_whoever_saves_a_file_is_told_no_folder(till, name, told):
    data = name.encode()
    made = create(till, data, **{"Upload-Metadata": coded(filename=name)})
    assert patch(till, made.headers["Location"], 0, data).status_code == 204
    got = till.call("GET", f"/v1/media/sha256/{sha256(data)}")
    assert got.headers["Content-Disposition"] == f"attachment; {told.format(hash=sha256(data))}"


@pytest.mark.parametrize(
    "path", ["/v1/media/sha256/..%2f..%2fserver.sqlite", "/v1/media/%2e%2e", "/v1/media/sha256/nothing"]
)
def test_a_path_that_is_none_of_ours_is_not_found(till, path):
    prepared = requests.Request("GET", "http://x").prepare()
    prepared.url = till.server.url + path
    prepared.headers.update(till.session.headers)
    assert till.session.send(prepared, timeout=20).status_code in (404, 405)


# -------------------------------------------------------------------------------------------------- dead connections


class HalfSent:
    """A PATCH whose connection stays open after some of its bytes, or is cut."""

    def __init__(self, till: Caller, address: str, data: bytes, length: int, at: int = 0, **headers: str) -> None:
        place = urlsplit(till.server.url)
        self.socket = socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=20)
        lines = (
            {
                "Host": place.netloc,
                "Authorization": str(till.session.headers["Authorization"]),
                "Upload-Offset": str(at),
                "Content-Length": str(length),
            }
            | CHUNK
            | headers
        )
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.socket.sendall(f"PATCH {address} HTTP/1.1\r\n{head}\r\n".encode() + data)

    def cut(self) -> None:
        self.socket.close()

    def status(self) -> int:
        with self.socket:
            return int(self.socket.recv(65536).split()[1])


def test_after_a_cut_connection_the_upload_resumes_at_the_byte(till, address):
    def kept_of_it() -> int:
        """Again, where the cut was seen before a byte was read: there was nothing to keep."""
        HalfSent(till, address, PHOTO[:200_000], len(PHOTO)).cut()
        return offset(till, address)

    kept = eventually(kept_of_it, what="the bytes that came are kept")
    assert kept <= 200_000
    assert patch(till, address, kept, PHOTO[kept:]).status_code == 204
    assert till.call("GET", f"/v1/media/sha256/{sha256(PHOTO)}").content == PHOTO


def test_of_a_cut_chunk_with_a_checksum_nothing_is_kept(till, address):
    HalfSent(till, address, PHOTO[:200_000], len(PHOTO), **checksum(PHOTO)).cut()
    assert offset(till, address) == 0
    assert patch(till, address, 0, PHOTO, **checksum(PHOTO)).status_code == 204


def test_a_newer_request_takes_over_from_one_that_hangs(till, address):
    hanging = []

    def kept_of_it() -> int:
        """Again, where the newer request came before a byte of the older one: there was nothing to keep."""
        hanging.append(HalfSent(till, address, PHOTO[:100_000], len(PHOTO)))
        return offset(till, address)

    kept = eventually(kept_of_it, what="the hanging request gave way and its bytes are kept")
    assert 408 in [one.status() for one in hanging]
    assert patch(till, address, kept, PHOTO[kept:]).status_code == 204


def test_a_sender_that_falls_silent_is_let_go(till, address, monkeypatch):
    monkeypatch.setattr(receiving, "QUIET_SECONDS", 0.2)
    hanging = HalfSent(till, address, PHOTO[:100_000], len(PHOTO))
    assert hanging.status() == 408
    assert offset(till, address) == 100_000


def test_a_server_that_died_before_the_completion_completes_when_it_is_asked(till, address, server):
    """The rows say what they say after a crash between the last byte and the hash."""
    patch(till, address, 0, PHOTO[:-1])
    file = server.settings.data / "media" / "uploads" / address.rpartition("/")[2]
    with file.open("ab") as tail:
        tail.write(PHOTO[-1:])
    database = open_database(server.settings.url)
    with database.writing() as connection:
        connection.execute(text("UPDATE server_upload SET position = length"))
    database.close()
    assert till.call("HEAD", f"/v1/media/sha256/{sha256(PHOTO)}").status_code == 404
    assert offset(till, address) == len(PHOTO)
    assert till.call("HEAD", f"/v1/media/sha256/{sha256(PHOTO)}").status_code == 200


def test_bytes_on_the_disk_that_were_never_promised_are_cut_off(till, address, server):
    patch(till, address, 0, PHOTO[:10])
    file = server.settings.data / "media" / "uploads" / address.rpartition("/")[2]
    with file.open("ab") as tail:
        tail.write(b"of a crash")
    assert patch(till, address, 10, PHOTO[10:]).status_code == 204
    assert till.call("GET", f"/v1/media/sha256/{sha256(PHOTO)}").content == PHOTO


def test_nobody_of_another_scope_takes_the_turn_of_an_upload(till, server):
    stranger, film = Caller(server, scope="a scope of strangers"), os.urandom(2**20 + 9)
    address = create(till, film).headers["Location"]
    sending = HalfSent(till, address, film[:-1], len(film))
    file = server.settings.data / "media" / "uploads" / address.rpartition("/")[2]
    eventually(lambda: file.stat().st_size, what="the request has its turn")
    assert stranger.call("HEAD", address, headers=TUS).status_code == 404
    stranger.session.close()
    sending.socket.sendall(film[-1:])
    assert sending.status() == 204


def test_data_does_not_wait_for_media_whose_store_hangs(till, server, monkeypatch):
    released, hanging = threading.Event(), []
    publish = DiskStore.publish

    def hang(*given: Any) -> None:
        hanging.append(given)
        released.wait(20)
        publish(*given)

    monkeypatch.setattr(DiskStore, "publish", hang)
    files = [b"%d" % number for number in range(2 * THREADS + 12)]
    addresses = [create(till, data).headers["Location"] for data in files]
    with ThreadPoolExecutor(len(files)) as pool:
        try:
            sent = [pool.submit(patch_alone, till, where, data) for where, data in zip(addresses, files, strict=True)]
            eventually(lambda: len(hanging) >= THREADS, what="media hangs")
            answer = till.session.post(
                server.url + "/v1/push",
                json={"ops": [till.op("insert", "customer", [1], fields={"id": 1, "name": "Ada"})]},
                timeout=5,
            )
            assert answer.status_code == 200, answer.text
            assert not any(one.done() for one in sent)
        finally:
            released.set()
        assert {one.result() for one in sent} == {204}


def patch_alone(till: Caller, address: str, data: bytes) -> int:
    """On a connection of its own."""
    headers = CHUNK | {"Upload-Offset": "0", "Authorization": str(till.session.headers["Authorization"])}
    return requests.patch(till.server.url + address, data=data, headers=headers, timeout=30).status_code


def test_the_folders_of_contents_outlive_a_crash_as_their_files_do(tmp_path, monkeypatch):
    synced: list[Path] = []
    sync = disk.sync_folder

    def watched(folder: Path) -> None:
        synced.append(folder.relative_to(tmp_path))
        sync(folder)

    monkeypatch.setattr(disk, "sync_folder", watched)
    store = DiskStore(tmp_path / "data" / "media")
    store.begin("first", 0)
    store.publish("first", 0, "shop", "a" * 64)
    place = next((tmp_path / "data" / "media" / "content").iterdir()).relative_to(tmp_path)
    assert {Path(), Path("data"), Path("data/media"), Path("data/media/content"), place} <= set(synced)


def test_an_upload_whose_row_cannot_be_written_now_leaves_no_file(till, server, monkeypatch):
    def busy(*_given: Any) -> None:
        raise DatabaseBusy("somebody else writes", hint="try again")

    folder = server.settings.data / "media" / "uploads"
    before = sorted(folder.iterdir())
    monkeypatch.setattr(uploads, "create", busy)
    assert problem(create(till)) == (503, "busy")
    assert sorted(folder.iterdir()) == before
