"""A process dies while it sends many small files in one message, at each of the written points, and the next one ends
where it would have ended: each work and each upload done once, and at most one message sent again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import Connection

from backhaul.bell import Queue
from backhaul.database import Database, open_database
from backhaul.files import enqueue_upload
from backhaul.media import uploads
from backhaul.media.put import put
from backhaul.media.uploads import Upload
from backhaul.remotes.base import Whole
from backhaul.remotes.http import HttpRemote
from backhaul.remotes.tus import TusRemote
from backhaul.schema import replica_metadata
from backhaul.wire import Column, Table
from backhaul.work import Work, ledger
from tests.chaos.crash_points import CRASH_POINTS, CrashPoint
from tests.chaos.dying import DEATH, Reaper, reaper
from tests.chaos.journeys import CHUNK_BYTES, CLOCK, run
from tests.services import SyncServer, sync_server

POINTS = [point for point in CRASH_POINTS if point.journey == "together"]
HOUR = 3_600_000
MESSAGE = 3  # files of one
FILES, BYTES = 7, CHUNK_BYTES // MESSAGE
LOST = (  # a message is a chunk: who does not know whether it came sends it again
    "answer to a message lost",
    "message settled, in the transaction",
    "second message: answer lost",
)


@pytest.fixture(scope="module")
def helper() -> Iterator[Reaper]:
    with reaper() as helper:
        yield helper


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncServer]:
    with sync_server(tmp_path_factory.mktemp("server")) as real:
        yield real


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_whoever_comes_after_a_death_sends_every_small_file_once(
    tmp_path: Path, helper: Reaper, real: SyncServer, point: CrashPoint
) -> None:
    files = [os.urandom(BYTES) for _ in range(FILES)]
    token = _token(real, tmp_path.name)
    with closing(TusRemote(real.url, token)) as remote, closing(_database(tmp_path)) as database:
        _put(database, tmp_path, files)
        remote.send_whole([Whole(sha256=_name(files[3]), name="", media_type="image/jpeg", content=files[3])])
        url = database.engine.url.render_as_string()
        job = {"database": url, "url": real.url, "token": token, "now": CLOCK.now()}

        assert helper.die(point, job) == DEATH
        there, before = remote.known([_name(file) for file in files]), _works(database)
        run("together", job | {"now": job["now"] + HOUR})

        after, again = _works(database), list[str]()
        assert {work.state for work in after.values()} == {"SUCCEEDED"}
        assert {upload.state for upload in _uploads(database)} == {"done"}
        for upload in _uploads(database):
            was, work = before[upload.id], after[upload.id]
            assert was.state in ("ENQUEUED", "RUNNING") or upload.sha256 in there
            assert was.output in (None, work.output)
            assert work.output is not None
            if was.output is None and upload.sha256 in there and work.output["sent"]:
                again.append(upload.id)
            elif was.output is None:
                assert work.output["sent"] == (0 if upload.sha256 in there else BYTES)
        assert len(again) == (MESSAGE if point.name in LOST else 0)
        assert [remote.fetch(_name(file), 0, BYTES + 1).content for file in files] == files
        assert run("together", job | {"now": job["now"] + 2 * HOUR}) == 0


def _name(file: bytes) -> str:
    return sha256(file).hexdigest()


def _token(real: SyncServer, name: str) -> str:
    table = Table(name="photo", columns=[Column(name="id")], key=["id"])
    with closing(HttpRemote(real.url)) as remote:
        return remote.register(real.enrol(name), [table], "camera").token


def _database(folder: Path) -> Database:
    database = open_database(f"sqlite:///{folder / 'replica.sqlite'}")
    replica_metadata.create_all(database.engine)
    return database


def _put(database: Database, folder: Path, files: list[bytes]) -> None:
    def enqueue(connection: Connection, upload: Upload) -> None:
        enqueue_upload(connection, upload, [Queue(name="media")], requires=frozenset(), now=CLOCK.now())

    for number, file in enumerate(files):
        path = folder / f"{number}.jpg"
        path.write_bytes(file)
        put(database, path, enqueue=enqueue, now=CLOCK.now())


def _works(database: Database) -> dict[str, Work]:
    with database.reading() as connection:
        return {work.id: work for work in ledger.query(connection, ours=True)}


def _uploads(database: Database) -> list[Upload]:
    with database.reading() as connection:
        return uploads.listed(connection)
