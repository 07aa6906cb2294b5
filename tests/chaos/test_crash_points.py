"""A process dies at each of the written points, and the next one ends where it would have ended."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from backhaul.clock import SystemClock
from backhaul.database import Database, open_database
from backhaul.media import contents, downloads, uploads
from backhaul.media.put import put
from backhaul.media.store import PREFIXES
from backhaul.media.store import Store as MediaStore
from backhaul.media.tidy import look, tidy
from backhaul.remotes.http import HttpRemote
from backhaul.schema import replica_metadata
from backhaul.wire import Column, Table
from tests.chaos.crash_points import CRASH_POINTS, CrashPoint
from tests.chaos.dying import DEATH, Reaper, reaper
from tests.chaos.journeys import CHUNK_BYTES, run
from tests.chaos.scenes import DISPUTES, scene
from tests.services import PostgreSQL, SyncServer, sync_server

pytestmark = pytest.mark.alternating("sqlite", "postgresql")

Undisturbed = Callable[[str, str], dict[str, Any]]
Cluster = Callable[[str], PostgreSQL | None]
UPLOADS = [point for point in CRASH_POINTS if point.journey == "upload"]
KEEPING = [point for point in CRASH_POINTS if point.journey in ("put", "tidy", "evict")]
DOWNLOADS = [point for point in CRASH_POINTS if point.journey == "download"]
OF_ROWS = [point for point in CRASH_POINTS if point.journey in ("attach", "reduce")]
TOGETHER = [point for point in CRASH_POINTS if point.journey == "together"]
PUBLISHING = [point for point in CRASH_POINTS if point.journey in ("complete", "take")]
ELSEWHERE = (*UPLOADS, *TOGETHER, *KEEPING, *DOWNLOADS, *OF_ROWS, *PUBLISHING)
OTHERS = [point for point in CRASH_POINTS if point not in ELSEWHERE]
# PostgreSQL has no text that cannot be sent, and its backups are put back otherwise.
ON_SQLITE = ("unsendable", "fork", "restored")
PLACES = [
    (database, point)
    for database in ("sqlite", "postgresql")
    for point in OTHERS
    if database == "sqlite" or point.journey not in ON_SQLITE
]
CHUNKS = 4


@pytest.fixture(scope="module")
def helper() -> Iterator[Reaper]:
    with reaper() as helper:
        yield helper


@pytest.fixture(scope="module")
def cluster_of(request: pytest.FixtureRequest) -> Cluster:
    def find(database: str) -> PostgreSQL | None:
        return request.getfixturevalue("cluster") if database == "postgresql" else None

    return find


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cluster_of: Cluster) -> Undisturbed:
    """How a journey ends when nobody dies."""
    known: dict[tuple[str, str], dict[str, Any]] = {}

    def outcome(database: str, journey: str) -> dict[str, Any]:
        if (database, journey) not in known:
            folder = tmp_path_factory.mktemp("undisturbed") / "scene"
            with scene(folder, journey, cluster_of(database)) as calm:
                calm.finish(journey)
                known[database, journey] = calm.outcome()
        return known[database, journey]

    return outcome


@pytest.mark.parametrize(("database", "point"), PLACES, ids=str)
def test_whoever_comes_after_a_death_ends_as_if_nobody_had_died(
    tmp_path: Path, helper: Reaper, undisturbed: Undisturbed, cluster_of: Cluster, database: str, point: CrashPoint
) -> None:
    with scene(tmp_path / "scene", point.journey, cluster_of(database)) as disturbed:
        assert helper.die(point, disturbed.job) == DEATH
        disturbed.finish(point.journey)
        assert disturbed.outcome() == undisturbed(database, point.journey)


@pytest.mark.parametrize(("database", "journey"), sorted({(database, point.journey) for database, point in PLACES}))
def test_the_journeys_that_are_disturbed_have_something_to_do_and_end_equal(
    undisturbed: Undisturbed, database: str, journey: str
) -> None:
    outcome = undisturbed(database, journey)
    parked = {row[1] for row in outcome["outbox"] if row[3] == "parked"}
    assert {row[3] for row in outcome["outbox"]} <= {"parked", "conflict"}
    assert bool(outcome["conflicts"]) == (journey in DISPUTES)
    assert outcome["muted"] == [(0, None)]
    assert bool(parked) == (journey in ("refusal", "unsendable", "discard"))
    if not parked and database == "sqlite" and journey != "conflict":
        assert outcome["a"] == outcome["b"]


# ------------------------------------------------------------------------------------------------ uploads


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncServer]:
    with sync_server(tmp_path_factory.mktemp("server")) as real:
        yield real


@pytest.mark.parametrize("point", UPLOADS, ids=str)
def test_an_upload_goes_on_at_the_byte(tmp_path: Path, helper: Reaper, real: SyncServer, point: CrashPoint) -> None:
    content = os.urandom(CHUNKS * CHUNK_BYTES - 1)
    job = _registered(tmp_path, real, content)
    assert helper.die(point, job) == DEATH
    there = _received(real, content)
    outcome = run("upload", job)
    assert outcome == {"sha256": sha256(content).hexdigest(), "size": len(content), "sent": len(content) - there}
    assert _received(real, content) == len(content)
    assert run("upload", job)["sent"] == 0


@pytest.mark.parametrize("point", DOWNLOADS, ids=str)
def test_a_download_goes_on_at_the_byte_and_leaves_nothing(
    tmp_path: Path, helper: Reaper, real: SyncServer, point: CrashPoint
) -> None:
    content = os.urandom(CHUNKS * CHUNK_BYTES - 1)
    job = _registered(tmp_path, real, content)
    name = run("upload", job)["sha256"]
    store = MediaStore(tmp_path / "media")
    job |= {"content": name, "folder": str(store.folder)}
    with closing(open_database(job["database"])) as database:
        with database.writing() as connection:
            downloads.ask(connection, name, now=0)
        assert helper.die(point, job) == DEATH
        here = sum(path.stat().st_size for path in (store.folder / "incoming").iterdir())
        whole = store.path(name).exists()
        with database.reading() as connection:
            noted = contents.get(connection, name) is not None
        assert not noted or whole
        outcome = run("download", job)
        expected = 0 if noted else len(content) - here
        assert outcome == {"sha256": name, "size": len(content), "received": expected}
        assert store.path(name).read_bytes() == content
        assert look(database, store).number == 0
        assert run("download", job)["received"] == 0


def _registered(folder: Path, real: SyncServer, content: bytes) -> dict[str, Any]:
    remote = HttpRemote(real.url)
    table = Table(name="photo", columns=[Column(name="id")], key=["id"])
    token = remote.register(real.enrol(folder.name), [table], "camera").token
    remote.close()
    url = f"sqlite:///{folder / 'replica.sqlite'}"
    database = open_database(url)
    replica_metadata.create_all(database.engine)
    (folder / "photo.jpg").write_bytes(content)
    upload = put(database, folder / "photo.jpg", enqueue=lambda connection, upload: None, now=SystemClock().now())
    database.close()
    return {"database": url, "url": real.url, "token": token, "upload": upload.id}


def _received(real: SyncServer, content: bytes) -> int:
    """How many bytes of the content the server has kept, in whichever upload."""
    connection = sqlite3.connect(real.settings.data / "server.sqlite")
    try:
        statement = """
            SELECT coalesce((SELECT size FROM server_media WHERE sha256 = :sha256),
                            (SELECT max(position) FROM server_upload WHERE sha256 = :sha256), 0)
        """
        (size,) = connection.execute(statement, {"sha256": sha256(content).hexdigest()}).fetchone()
        return int(size)
    finally:
        connection.close()


# ------------------------------------------------------------------------------------------------ kept files


@pytest.mark.parametrize("point", KEEPING, ids=str)
def test_a_death_leaves_nothing_that_is_not_tidied_away(tmp_path: Path, helper: Reaper, point: CrashPoint) -> None:
    """And a file that is put again is kept, whatever was left of the first time."""
    url, store = f"sqlite:///{tmp_path / 'replica.sqlite'}", MediaStore(tmp_path / "media")
    job = {"database": url, "folder": str(store.folder), "file": str(tmp_path / "photo.jpg")}
    (tmp_path / "photo.jpg").write_bytes(os.urandom(3 * 2**20))
    with closing(open_database(url)) as database:
        replica_metadata.create_all(database.engine)
        if point.journey == "tidy":
            _untidy(database, store)
        if point.journey == "evict":
            content = run("put", job)
            with database.writing() as connection:
                contents.on_server(connection, content)
                for upload in uploads.listed(connection):
                    uploads.finish(connection, upload.id, now=0)
        assert helper.die(point, job) == DEATH
        _check_consistent_after_tidying(database, store)
        content = run("put", job)
        assert sha256(store.path(content).read_bytes()).hexdigest() == content
        assert look(database, store).number == 0
        assert store.contents(content[:2]).keys() == {content}


def _untidy(database: Database, store: MediaStore) -> None:
    """A leftover, a row without its file, and one whose file is too short."""
    with store.incoming():
        pass
    (store.folder / "incoming" / "left").write_bytes(b"x")
    with database.writing() as connection:
        for name in ("00" * 32, "ff" * 32):
            contents.keep(connection, name, size=2, now=0)
    store.path("ff" * 32).parent.mkdir()
    store.path("ff" * 32).write_bytes(b"x")


def _check_consistent_after_tidying(database: Database, store: MediaStore) -> None:
    tidy(database, store)
    assert look(database, store).number == 0
    with database.reading() as connection:
        known = {name: size for prefix in PREFIXES for name, size in contents.beginning(connection, prefix).items()}
    assert known == {name: size for prefix in PREFIXES for name, size in store.contents(prefix).items()}
    assert list((store.folder / "incoming").iterdir()) == []
