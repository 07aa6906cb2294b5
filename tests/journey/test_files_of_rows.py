"""Files that rows name, with real workers: read by the queues that are designated for it, when those are open."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backhaul.clock import SystemClock
from backhaul.replica import enrol
from backhaul.server.memory import MemoryRemote, MemoryServer
from backhaul.work import ledger
from tests.crew import CONFIGURATION, Crew
from tests.waiting import eventually

TABLES = """
    CREATE TABLE photo (id INTEGER PRIMARY KEY, path TEXT, size INTEGER);
    CREATE TABLE scan (id INTEGER PRIMARY KEY, path TEXT, size INTEGER);
"""
FILES = (
    CONFIGURATION.replace("[media]\n", '[media]\ntransform_requires = ["charging"]\n')
    + """
[queues.home]
tags = ["charging"]
[tables.photo.media]
column = "path"
size = "size"
[tables.scan.media]
column = "path"
size = "size"
transform = "made_smaller:half"
"""
)
HALF = """
def half(source, target):
    content = source.read_bytes()
    target.write_bytes(content[: len(content) // 2])
"""


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(tmp_path / "files", configuration=FILES)
    (crew.home / "made_smaller.py").write_text(HALF)
    with closing(sqlite3.connect(crew.home / "shop.db")) as app:
        app.executescript(TABLES)
    server = MemoryServer()
    enrol.enrol(
        crew.database,
        MemoryRemote(server),
        code=server.enrol(),
        url="memory:",
        home=str(crew.home),
        name="van",
        names=["photo", "scan"],
        clock=SystemClock(),
        rules=crew.settings.rules,
    )
    yield crew
    crew.end()


def sizes(crew: Crew) -> dict[str, int | None]:
    with closing(sqlite3.connect(crew.home / "shop.db")) as app:
        return dict(app.execute("SELECT 'photo', size FROM photo UNION ALL SELECT 'scan', size FROM scan").fetchall())


def test_files_are_read_and_made_smaller_by_their_queues_when_those_open(crew: Crew) -> None:
    (crew.home / "door.txt").write_text("x" * 1_000)
    crew.set(connected=True, unmetered=False, charging=False)
    crew.worker()
    crew.beat()
    with closing(sqlite3.connect(crew.home / "shop.db")) as app, app:
        app.execute("INSERT INTO photo (id, path) VALUES (1, 'door.txt')")
        app.execute("INSERT INTO scan (id, path) VALUES (1, 'door.txt')")
    eventually(lambda: due(crew, "attach") and due(crew, "transform"), 30, "Beat has woken both works")
    assert sizes(crew) == {"photo": None, "scan": None}
    crew.set(unmetered=True)
    eventually(lambda: sizes(crew) == {"photo": 1_000, "scan": None}, 30, "what needs no transform is read")
    crew.set(charging=True)
    eventually(lambda: sizes(crew) == {"photo": 1_000, "scan": 500}, 30, "the other is made smaller")
    with crew.database.reading() as connection:
        works = [ledger.get(connection, name) for name in ("attach", "transform")]
    assert [work.queue for work in works if work] == ["media", "home"]


def due(crew: Crew, name: str) -> bool:
    with crew.database.reading() as connection:
        work = ledger.get(connection, name)
    return work is not None and work.due_at <= SystemClock().now()
