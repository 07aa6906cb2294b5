"""Contents that are fetched because a record has arrived that names them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, select

from backhaul import Backhaul, eager
from backhaul.bell import MediaRules, Queue, SilentBell
from backhaul.database import Database
from backhaul.files import DOWNLOAD
from backhaul.media import contents, downloads
from backhaul.remotes.base import Remote
from backhaul.remotes.endpoint import Endpoint
from backhaul.schema import work
from backhaul.server.memory import MemoryRemote, MemoryServer
from backhaul.wire import Record
from config.media import eager_columns
from config.settings import Settings
from tests.contract.media.conftest import Camera
from tests.replicas import Replica, make_replica

QUEUES = [Queue(name="media", kinds=frozenset({DOWNLOAD}))]
PHOTOS = "CREATE TABLE photo (id TEXT PRIMARY KEY, hash TEXT);"
NOW = 1_700_000_000_000


def named(content: bytes) -> str:
    return sha256(content).hexdigest()


def want(connection: Connection, *values: Any, table: str = "photo") -> int:
    records = [Record(table=table, key=[n], version=1, fields={"hash": value}) for n, value in enumerate(values)]
    columns = {"photo": "hash"}
    return eager.want(connection, records, columns, queues=QUEUES, requires=frozenset(), now=NOW)


def wanted(database: Database) -> set[str]:
    """What is asked for, in both ledgers."""
    with database.reading() as connection:
        asked = downloads.wanted(connection)
        rows = connection.execute(select(work.c.input, work.c.queue).where(work.c.task == DOWNLOAD)).all()
    assert {row.queue for row in rows} <= {"media"}
    assert {row.input for row in rows} == {f'{{"sha256":"{one}"}}' for one in asked}
    return asked


def test_what_a_record_names_is_asked_for_once(camera: Camera) -> None:
    new, again = named(b"new"), named(b"again")
    with camera.desk.database.writing() as connection:
        assert want(connection, new, again, again) == 2
        assert want(connection, again, None, 7, "no hash", new.upper()) == 0
        assert want(connection, named(b"of another table"), table="note") == 0
    assert wanted(camera.desk.database) == {new, again}


def test_what_is_here_or_was_put_here_is_not_asked_for(camera: Camera, tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(b"mine")
    mine = camera.media.put(tmp_path / "mine.jpg", keep=False)
    with camera.desk.database.writing() as connection:
        contents.keep(connection, named(b"kept"), size=4, now=NOW)
        assert want(connection, mine.sha256, named(b"kept")) == 0
    assert wanted(camera.desk.database) == set()


def test_the_statements_do_not_grow_with_the_records(camera: Camera) -> None:
    def statements(number: int) -> int:
        said: list[str] = []
        listening = (camera.desk.database.engine, "before_cursor_execute", lambda *args: said.append(args[2]))
        event.listen(*listening)
        with camera.desk.database.writing() as connection:
            assert want(connection, *(named(f"{number} {n}".encode()) for n in range(number))) == number
        event.remove(*listening)
        return len(said)

    assert statements(10) == statements(400)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[Replica]]:
    """Two replicas of one server."""
    server = MemoryServer()
    pair = [
        make_replica(tmp_path / f"{name}.sqlite", MemoryRemote(server), schema=PHOTOS, code=server.enrol())
        for name in "ab"
    ]
    yield pair
    for replica in pair:
        replica.close()


def test_what_others_put_comes_with_their_records(pair: list[Replica]) -> None:
    a, b = pair
    theirs = named(b"theirs")
    a.write("INSERT INTO photo VALUES ('1', ?), ('2', NULL)", theirs)
    a.push()
    b.pull(brought=eager.fetching(MediaRules(eager={"photo": "hash"}), QUEUES, b.clock))
    assert wanted(b.database) == {theirs}


class Desk(SilentBell):
    """It has the photos come, and knows the way to the server."""

    def __init__(self, way: Remote) -> None:
        super().__init__(QUEUES)
        self.media = MediaRules(eager={"photo": "hash"})
        self._way = way

    def remote(self, endpoint: Endpoint | None = None) -> Remote:
        return self._way


def test_so_it_does_in_a_session_of_the_app(pair: list[Replica]) -> None:
    a, b = pair
    theirs = named(b"theirs")
    a.write("INSERT INTO photo VALUES ('1', ?)", theirs)
    a.push()
    with closing(Backhaul(create_engine(b.database.engine.url), bell=Desk(b.remote))) as app:
        app.session().download_all_server_changes(timeout=60)
    assert wanted(b.database) == {theirs}


def test_what_is_fetched_so_is_said_for_all_tables_or_for_one(tmp_path: Path) -> None:
    def columns(usual: str, **tables: dict[str, str]) -> dict[str, str]:
        told = {name: {"media": media} for name, media in tables.items()}
        return eager_columns(Settings(home=tmp_path, media={"download": usual}, tables=told))

    photo, film = {"sha256": "hash"}, {"sha256": "sum", "download": "lazy"}
    assert columns("eager", photo=photo, film=film, note={}) == {"photo": "hash"}
    assert columns("lazy", photo=photo, film=film) == {}
    assert columns("lazy", photo=photo | {"download": "eager"}) == {"photo": "hash"}
