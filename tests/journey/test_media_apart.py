"""Files and data on their own queues, with real workers: neither waits for the other, and files wait for their link."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from backhaul.media import uploads
from backhaul.remotes.tus import TusRemote
from backhaul.schema import upload as table
from config.credentials import read_token
from tests.crew import Crew
from tests.faults.proxy import PROTOCOL, PassOn, Proxy, Request, Rule, proxy, says
from tests.faults.proxy import Answer as Said
from tests.journey.test_worker_sync import join, put, waiting
from tests.services import SyncServer, sync_server
from tests.waiting import eventually

MEDIA_WORKERS = ("media-1", "media-2")
FLIPS = 5
QUIET = ("GET", "HEAD")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SyncServer]:
    with sync_server(tmp_path / "server") as server:
        yield server


@pytest.fixture
def between(server: SyncServer) -> Iterator[Proxy]:
    with proxy(server.url) as made:
        yield made


@pytest.fixture
def crew(tmp_path: Path, server: SyncServer, between: Proxy) -> Iterator[Crew]:
    made = join(tmp_path / "home", SyncServer(url=between.url, settings=server.settings, clock=server.clock))
    try:
        made.worker("data", queues="sync")
        yield made
    finally:
        made.end()


def write(crew: Crew, first: int, number: int = 1) -> None:
    with sqlite3.connect(crew.home / "shop.db", timeout=30) as app:
        rows = [(key, f"c{key}") for key in range(first, first + number)]
        app.executemany("INSERT INTO customer (id, name) VALUES (?, ?)", rows)
    app.close()


def done(crew: Crew) -> int:
    with crew.database.reading() as connection:
        return uploads.counts(connection)["done"]


def running(crew: Crew) -> int:
    with crew.database.reading() as connection:
        statement = "SELECT count(*) FROM backhaul_work WHERE task = 'backhaul.upload' AND state = 'RUNNING'"
        return int(connection.exec_driver_sql(statement).scalar_one())


def carries_a_file(request: Request) -> bool:
    return request.path.startswith("/v1/media") and request.method not in QUIET and not request.path.endswith("/known")


class Record:
    """When requests that carry a part of a file came, and whether they were answered."""

    def __init__(self, between: Proxy) -> None:
        self.came: list[float] = []
        between.rule = self._rule

    def _rule(self, request: Request, pass_on: PassOn) -> Said:
        if carries_a_file(request):
            self.came.append(time.monotonic())
        return pass_on()

    def since(self, moment: float) -> int:
        return sum(one >= moment for one in self.came)


def take(folder: Path, number: int) -> list[Path]:
    folder.mkdir()
    made = [folder / f"IMG_{one:04}.jpg" for one in range(number)]
    for one, path in enumerate(made):
        path.write_bytes(b"photo %d " % one * 2_000)
    return made


def a_camera_folder_over_a_link_that_is_metered_now_and_then(
    crew: Crew, server: SyncServer, between: Proxy, folder: Path, number: int
) -> None:
    record = Record(between)
    for name in MEDIA_WORKERS:
        crew.worker(name, queues="media")
    crew.set(unmetered=False)
    closed(crew)
    moment, photos, made = time.monotonic(), take(folder, number), []
    crew.beat()
    for flip in range(FLIPS):
        end = number * (flip + 1) // FLIPS
        made += [put(crew, path) for path in photos[len(made) : end]]
        write(crew, first=flip)
        eventually(lambda: not waiting(crew), 20, "data goes on metered time")
        assert record.since(moment) == 0, "a file went on metered time"
        crew.set(unmetered=True)
        wanted = end - number // FLIPS // 2
        eventually(lambda: done(crew) >= wanted, 120, f"{wanted} files are there")  # noqa: B023
        crew.set(unmetered=False)
        closed(crew)
        shut = time.monotonic()
        eventually(lambda: running(crew) == 0, 20, "the running chunks are through")
        moment = time.monotonic()
        assert record.since(shut) <= len(MEDIA_WORKERS)
    write(crew, first=FLIPS)
    eventually(lambda: not waiting(crew), 20, "data goes on metered time")
    assert record.since(moment) == 0, "a file went on metered time"
    crew.set(unmetered=True)
    eventually(lambda: done(crew) == number, 240, "the whole folder is there")
    with crew.database.reading() as connection:
        touched = connection.execute(select(table.c.worker, table.c.queue).distinct()).all()
    assert {row.queue for row in touched} == {"media"}
    assert {str(row.worker).partition("@")[0] for row in touched} <= set(MEDIA_WORKERS)
    assert "backhaul.upload" not in crew.log("worker-data").partition("ready")[2]
    with closing(TusRemote(server.url, read_token(crew.settings.state))) as remote:
        assert remote.known([one.sha256 for one in made]) == {one.sha256 for one in made}


def closed(crew: Crew) -> None:
    for name in MEDIA_WORKERS:
        eventually(lambda name=name: crew.is_open("media", worker=name) is False, 10, "media is closed")  # type: ignore[misc]


def test_a_camera_folder_of_fifty_goes_on_unmetered_time_and_by_media_workers_alone(
    crew: Crew, server: SyncServer, between: Proxy, tmp_path: Path
) -> None:
    a_camera_folder_over_a_link_that_is_metered_now_and_then(crew, server, between, tmp_path / "DCIM", 50)


@pytest.mark.chaos
def test_a_camera_folder_of_five_hundred_does_so_too(
    crew: Crew, server: SyncServer, between: Proxy, tmp_path: Path
) -> None:
    a_camera_folder_over_a_link_that_is_metered_now_and_then(crew, server, between, tmp_path / "DCIM", 500)


def test_data_flows_while_media_hangs_fails_is_forbidden_and_is_busy(
    crew: Crew, between: Proxy, tmp_path: Path
) -> None:
    ended, asked = threading.Event(), threading.Event()

    def hang(_request: Request, _pass_on: PassOn) -> Said | None:
        ended.wait(60)
        return None

    modes: dict[str, Rule] = {
        "hangs": hang,
        "fails": says(500, PROTOCOL),
        "is forbidden": says(403, PROTOCOL),
        "is busy": says(503, PROTOCOL, ("Retry-After", "600")),
    }
    now: list[Rule] = [hang]

    def rule(request: Request, pass_on: PassOn) -> Said | None:
        if not request.path.startswith("/v1/media"):
            return pass_on()
        asked.set()
        return now[0](request, pass_on)

    between.rule = rule
    crew.worker("media-1", queues="media")
    crew.beat()
    try:
        for number, mode in enumerate(modes):
            asked.clear()
            now[0] = modes[mode]
            photo = tmp_path / f"{number}.jpg"
            photo.write_bytes(b"photo %d" % number)
            put(crew, photo)
            if mode != "hangs":
                ended.set()
            assert asked.wait(60), f"nobody asked while media {mode}"
            write(crew, 1_000 * number, 1_000)
            eventually(lambda: not waiting(crew), 10, f"data goes while media {mode}")
            assert done(crew) == 0
    finally:
        ended.set()
