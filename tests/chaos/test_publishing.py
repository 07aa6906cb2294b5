"""The server dies while bytes become content, at each of the written points: whoever asks again has it, and if nobody
does, nothing is left on the disk that no row tells of, and no row of what is not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import text

from backhaul.database import open_database
from backhaul.errors import Busy, DatabaseBusy
from backhaul.remotes.base import Whole
from backhaul.remotes.tus import TusRemote
from backhaul.server import uploads
from backhaul.server.contents.disk import DiskStore
from tests.chaos.crash_points import CRASH_POINTS, CrashPoint
from tests.chaos.dying import DEATH, Reaper, reaper
from tests.services import SyncServer, sync_server
from tests.unit.server.conftest import Caller, SetClock
from tests.unit.server.test_media import DAY_MS, coded, create, offset, patch, sha256

POINTS = {name: [point for point in CRASH_POINTS if point.journey == name] for name in ("complete", "take")}
PUBLISHED = ("published", "in their places", "entered, in the transaction", "entered")
BYTES = 100_000


@pytest.fixture(scope="module")
def helper() -> Iterator[Reaper]:
    with reaper() as helper:
        yield helper


@pytest.fixture
def server(tmp_path) -> Iterator[SyncServer]:
    """One of the test's own: what is looked at is all that it has."""
    with sync_server(tmp_path / "server", clock=SetClock()) as running:
        yield running


@pytest.fixture
def till(server: SyncServer) -> Iterator[Caller]:
    caller = Caller(server)
    yield caller
    caller.session.close()


@pytest.mark.parametrize("asked", [True, False], ids=["asked again", "forgotten"])
@pytest.mark.parametrize("promised", [True, False], ids=["hash promised", "no hash promised"])
@pytest.mark.parametrize("point", POINTS["complete"], ids=str)
def test_bytes_of_an_upload_become_content_or_go(
    helper: Reaper, server: SyncServer, till: Caller, point: CrashPoint, promised: bool, asked: bool
) -> None:
    photo = os.urandom(BYTES)
    said = {} if promised else {"Upload-Metadata": coded(filename="photo.jpg", filetype="image/jpeg")}
    address = create(till, photo, **said).headers["Location"]
    assert patch(till, address, 0, photo[:-1]).status_code == 204
    job = _job(server, till) | {"upload": address.rpartition("/")[2], "last": photo[-1:].hex()}
    assert helper.die(point, job) == DEATH
    if asked:
        assert offset(till, address) == BYTES
    _a_month_later(server, till)
    here = _in_order(server)
    assert (sha256(photo) in here) == (asked or point.name in PUBLISHED)
    if sha256(photo) in here:
        assert here[sha256(photo)] == "photo.jpg"
        assert till.call("GET", f"/v1/media/sha256/{sha256(photo)}").content == photo


@pytest.mark.parametrize("asked", [True, False], ids=["asked again", "forgotten"])
@pytest.mark.parametrize("point", POINTS["take"], ids=str)
def test_small_files_of_a_message_become_content_or_go(
    helper: Reaper, server: SyncServer, till: Caller, point: CrashPoint, asked: bool
) -> None:
    files = [os.urandom(1_000 + number) for number in range(3)]
    assert helper.die(point, _job(server, till) | {"files": [file.hex() for file in files]}) == DEATH
    if asked:
        with closing(TusRemote(server.url, till.registered["token"])) as remote:
            assert remote.send_whole(_whole(files)) == {sha256(file) for file in files}
    _a_month_later(server, till)
    here = _in_order(server)
    for file in files:
        assert (sha256(file) in here) == (asked or point.name in PUBLISHED)
        if sha256(file) in here:
            assert here[sha256(file)] == "photo.jpg"
            assert till.call("GET", f"/v1/media/sha256/{sha256(file)}").content == file


def test_small_files_that_could_not_be_entered_are_when_their_uploads_expire(server: SyncServer, till: Caller) -> None:
    files = [os.urandom(1_000 + number) for number in range(3)]

    def busy(*_: object) -> None:
        raise DatabaseBusy("the database is locked", hint="try again")

    with closing(TusRemote(server.url, till.registered["token"])) as remote, pytest.MonkeyPatch.context() as locked:
        locked.setattr(uploads, "enter_all", busy)
        with pytest.raises(Busy):
            remote.send_whole(_whole(files))
    assert till.call("HEAD", f"/v1/media/sha256/{sha256(files[0])}").status_code == 404
    _a_month_later(server, till)
    assert _in_order(server) == dict.fromkeys(map(sha256, files), "photo.jpg")


def test_an_upload_that_another_process_has_in_hand_does_not_expire(server: SyncServer, till: Caller) -> None:
    address = create(till, b"a film").headers["Location"]
    assert patch(till, address, 0, b"a fi").status_code == 204
    upload = address.rpartition("/")[2]
    file = server.settings.data / "media" / "uploads" / upload
    with closing(DiskStore(server.settings.data / "media").hold(upload)):
        _a_month_later(server, till)
        assert file.read_bytes() == b"a fi"
    assert isinstance(server.clock, SetClock)
    server.clock.ahead += DAY_MS
    assert create(till, b"a third one").status_code == 201
    assert not file.exists()


def _whole(files: list[bytes]) -> list[Whole]:
    return [Whole(sha256=sha256(file), name="photo.jpg", media_type="image/jpeg", content=file) for file in files]


def _job(server: SyncServer, till: Caller) -> dict[str, object]:
    told = {name: till.registered[name] for name in ("replica", "scope")}
    return told | {"database": server.settings.url, "data": str(server.settings.data), "now": server.clock.now()}


def _a_month_later(server: SyncServer, till: Caller) -> None:
    """Whoever uploads next has the server look for what has expired."""
    assert isinstance(server.clock, SetClock)
    server.clock.ahead += 30 * DAY_MS
    assert create(till, b"another one").status_code == 201


def _in_order(server: SyncServer) -> dict[str, str]:
    """The names of all contents by their hashes: those of the rows are those of the disk, and no bytes are left of
    uploads, but for the newest."""
    media = server.settings.data / "media"
    on_disk = {file.name for file in media.glob("content/*/*")}
    with closing(open_database(server.settings.url)) as database, database.reading() as connection:
        rows = {row.sha256: row.name for row in connection.execute(text("SELECT sha256, name FROM server_media"))}
        open_uploads = set(connection.execute(text("SELECT id FROM server_upload")).scalars())
    assert set(rows) == on_disk
    assert {file.name for file in (media / "uploads").iterdir()} == open_uploads
    assert len(open_uploads) == 1
    return rows
