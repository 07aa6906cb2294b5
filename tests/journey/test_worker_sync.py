"""A replica's changes and files, carried by real workers to a real server."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, text

from backhaul.bell import SilentBell
from backhaul.clock import SystemClock
from backhaul.database import on_server
from backhaul.errors import MediaNotHere
from backhaul.files import Media
from backhaul.media.uploads import Upload
from backhaul.remotes.http import HttpRemote
from backhaul.replica import enrol, outbox
from backhaul.work import ledger
from backhaul.work.ledger import Work
from config.bell import CeleryBell
from config.credentials import write_token
from config.queues import declared
from tests.crew import CONFIGURATION, Crew, folder
from tests.replicas import SHOP
from tests.services import SyncServer, sync_server
from tests.waiting import eventually


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SyncServer]:
    with sync_server(tmp_path / "server") as server:
        yield server


def join(home: Path, server: SyncServer, url: str = "sqlite:///shop.db") -> Crew:
    """A replica of the shop, enrolled; sync every second. url: of an empty database."""
    home = folder(home.name)
    if on_server(url):
        with psycopg.connect(url.replace("+psycopg", "")) as there:
            there.execute(SHOP.replace("BLOB", "bytea"))  # type: ignore[arg-type]
    else:
        with sqlite3.connect(home / "shop.db") as app:
            app.executescript(SHOP)
        app.close()
    often = CONFIGURATION.replace("http://127.0.0.1:1", server.url).replace('pull_every = "1d"', 'pull_every = "1s"')
    often = often.replace("sqlite:///shop.db", url)
    crew = Crew(home, configuration=often)
    remote = HttpRemote(server.url)
    enrolled = enrol.enrol(
        crew.database,
        remote,
        code=server.enrol(),
        url=server.url,
        home=str(home),
        name=home.name,
        names=[],
        clock=SystemClock(),
    )
    remote.close()
    write_token(crew.settings.state, enrolled.registered.token)
    return crew


def customers(crew: Crew) -> list[tuple[int, str]]:
    with crew.database.reading() as connection:
        return [tuple(row) for row in connection.exec_driver_sql("SELECT id, name FROM customer ORDER BY id")]


def put(crew: Crew, file: Path) -> Upload:
    bell = SilentBell(declared(crew.settings), frozenset(crew.settings.media.requires))
    return Media(crew.database, bell, SystemClock()).put(file)


def test_what_another_program_writes_reaches_the_other_replica(tmp_path: Path, server: SyncServer) -> None:
    here, there = join(tmp_path / "here", server), join(tmp_path / "there", server)
    try:
        for crew in (here, there):
            crew.worker(queues="sync")
            crew.beat()
        with sqlite3.connect(here.home / "shop.db") as other:
            other.executemany("INSERT INTO customer (id, name) VALUES (?, ?)", [(n, f"c{n}") for n in range(2_000)])
        other.close()
        eventually(lambda: len(customers(there)) == 2_000, 20, "the other replica has them")
        assert customers(there) == customers(here)
        eventually(lambda: not waiting(here), 5, "nothing waits")
    finally:
        here.end()
        there.end()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_broker_that_is_flushed_every_second_costs_time_and_nothing_else(
    tmp_path: Path, server: SyncServer, kind: str, request: pytest.FixtureRequest
) -> None:
    cluster: Any = request.getfixturevalue("cluster") if kind == "postgresql" else None
    here = join(tmp_path / "here", server, *([cluster.database(lasting=True)] if cluster else []))
    there = join(tmp_path / "there", server)
    engine = create_engine(here.settings.database_url)  # another program's, without our hook
    written = 0

    def write() -> None:
        nonlocal written
        with engine.begin() as app:
            app.execute(text("INSERT INTO customer (id, name) VALUES (:id, 'x')"), {"id": written})
        written += 1

    def flushed_after_a_write() -> bool:
        """Whether the flush came before the server had it all."""
        write()
        here.flush()
        there.flush()
        return waiting(here) > 0

    try:
        for crew in (here, there):
            crew.worker(queues="sync")
            crew.beat()
        for _ in range(2 if cluster else 4):
            for _ in range(20):
                write()
                time.sleep(0.05)  # the app's own pace
            here.flush()
            there.flush()
        eventually(flushed_after_a_write, 10, "the last flush comes while something waits")
        eventually(lambda: len(customers(there)) == written, 30, "the other replica has them, and nobody has written")
        eventually(lambda: not waiting(here), 10, "nothing waits")
        assert customers(there) == customers(here)
    finally:
        engine.dispose()
        here.end()
        there.end()


def test_a_writer_without_our_hook_is_noticed_without_a_beat(tmp_path: Path, server: SyncServer) -> None:
    crew = join(tmp_path / "here", server)
    try:
        crew.worker(queues="sync")
        for number in range(3):
            with sqlite3.connect(crew.home / "shop.db") as other:
                other.execute("INSERT INTO customer (id, name) VALUES (?, 'x')", [number])
            other.close()
            eventually(lambda: not waiting(crew), 5, "the server has it")
    finally:
        crew.end()


def test_changes_made_while_the_queue_is_closed_leave_one_message(tmp_path: Path, server: SyncServer) -> None:
    crew = join(tmp_path / "here", server)
    bell = CeleryBell(crew.settings)
    try:
        crew.set(connected=False)
        crew.worker(queues="sync")
        crew.beat()
        with sqlite3.connect(crew.home / "shop.db") as other:
            for number in range(20):
                other.execute("INSERT INTO customer (id, name) VALUES (?, 'x')", [number])
                other.commit()
                push = eventually(lambda: rung(crew, "push"), 10, "the push is rung for")
                bell.ring(push.ring)
                time.sleep(0.1)  # the app's own pace: slower than the bell, so that each is seen
        other.close()
        assert crew.waiting("sync") <= 5  # push and pull, by beat, by the bell; reconcile
        crew.set(connected=True)
        eventually(lambda: not waiting(crew), 10, "the server has them")
    finally:
        bell.close()
        crew.end()


def rung(crew: Crew, work_id: str) -> Work | None:
    with crew.database.reading() as connection:
        work = ledger.get(connection, work_id)
    return work if work is not None and work.rung_at else None


def waiting(crew: Crew) -> int:
    with crew.database.reading() as connection:
        return outbox.waiting(connection)


def test_a_file_waits_for_its_conditions_and_goes_by_the_media_worker(tmp_path: Path, server: SyncServer) -> None:
    crew = join(tmp_path / "here", server)
    try:
        crew.set(unmetered=False)
        crew.worker("data", queues="sync")
        crew.worker("heavy", queues="media")
        crew.beat()
        file = tmp_path / "photo.jpg"
        file.write_bytes(b"picture" * 100_000)
        upload = put(crew, file)
        eventually(lambda: crew.waiting("media"), 5, "its message waits")
        crew.set(unmetered=True)
        eventually(lambda: state(crew, upload)[0] == "done", 15, "it is uploaded")
        assert state(crew, upload)[1:] == ("media", "heavy@crew")
    finally:
        crew.end()


def state(crew: Crew, upload: Upload) -> tuple[str, str, str]:
    with crew.database.reading() as connection:
        row = connection.exec_driver_sql(
            f"SELECT state, queue, worker FROM backhaul_upload WHERE id = '{upload.id}'"
        ).one()
    return (row[0], row[1], row[2])


def test_what_was_put_here_and_deleted_is_read_there_by_the_media_workers(tmp_path: Path, server: SyncServer) -> None:
    here, there = join(tmp_path / "here", server), join(tmp_path / "there", server)
    content = os.urandom(3 * 2**20)
    bells = [CeleryBell(crew.settings) for crew in (here, there)]
    try:
        for crew in (here, there):
            crew.set(connected=True, unmetered=True, charging=True, storage_not_low=True)
            crew.worker("heavy", queues="media")
        putting, getting = (
            Media(crew.database, bell, SystemClock()) for crew, bell in zip((here, there), bells, strict=True)
        )
        (here.home / "photo.jpg").write_bytes(content)
        made = putting.put(here.home / "photo.jpg")
        (here.home / "photo.jpg").unlink()
        eventually(lambda: putting.list()[0].state == "done", 15, "the server has it")
        assert eventually(lambda: _read(getting, made.sha256), 15, "it has come") == content
        with there.database.reading() as connection:
            work = ledger.by_name(connection, f"download:{made.sha256}")
        assert work is not None
        assert work.queue == "media"
        assert work.worker in ("heavy@crew", None)  # None: it has settled by now
    finally:
        for bell in bells:
            bell.close()
        here.end()
        there.end()


def _read(media: Media, sha256: str) -> bytes | None:
    try:
        with media.open(sha256) as file:
            return file.read()
    except MediaNotHere:
        return None
