"""A row names a file, by a program that knows nothing of Backhaul; another replica gets the record with it."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.branch import Branch, ServerProcess, backhaul
from tests.waiting import eventually

SCHEMA = """
    CREATE TABLE visit (id INTEGER PRIMARY KEY, note TEXT);
    CREATE TABLE photo (
        id INTEGER PRIMARY KEY, visit_id INTEGER REFERENCES visit (id), path TEXT, sha256 TEXT, size INTEGER);
    CREATE TABLE remark (id INTEGER PRIMARY KEY, photo_id INTEGER REFERENCES photo (id), said TEXT);
"""
SETTINGS = """
[tables.photo.media]
column = "path"
folder = "photos"
sha256 = "sha256"
size = "size"
visible = "with-media"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path / "server")
    server.start()
    yield server
    server.stop()


def branch(home: Path, server: ServerProcess, settings: str) -> Branch:
    home.mkdir()
    (home / "backhaul.toml").write_text(settings)
    with closing(sqlite3.connect(home / "van.db")) as app:
        app.executescript(SCHEMA)
    return Branch(home, home / "van.db", server)


@pytest.mark.slow
def test_a_record_with_its_file_reaches_another_replica_and_data_does_not_wait(
    tmp_path: Path, server: ServerProcess
) -> None:
    van, office = branch(tmp_path / "van", server, SETTINGS), branch(tmp_path / "office", server, "")
    (van.home / "photos").mkdir()
    picture = os.urandom(3 * 2**20)
    (van.home / "photos" / "door.jpg").write_bytes(picture)
    backhaul("condition", "set", "unmetered", "off", cwd=van.home)
    with van.up():
        with closing(van.connect()) as app, app:
            app.execute("INSERT INTO visit VALUES (1, 'data does not wait')")
            app.execute("INSERT INTO photo (id, visit_id, path) VALUES (1, 1, 'door.jpg'), (2, 1, 'never.jpg')")
            app.execute("INSERT INTO remark VALUES (1, 1, 'of the door')")
        eventually(lambda: van.status()["pending"] == 3, timeout=30, what="all is sent but what waits for files")
        assert van.status()["held"] == 3
        assert "3 pending, 3 of them held for their files" in backhaul("status", cwd=van.home).stdout
        why = backhaul("why", "photo", "1", cwd=van.home).stdout
        assert why.startswith("held: awaits-media: it becomes visible to others with its file")
        backhaul("sync", "--wait", cwd=office.home)
        assert (office.rows("visit"), office.rows("photo")) == ([(1, "data does not wait")], [])

        backhaul("condition", "set", "unmetered", "on", cwd=van.home)
        eventually(lambda: van.status()["pending"] == 1, timeout=60, what="the door is on the server, and told of")
        unread = json.loads(backhaul("media", "list", "--json", cwd=van.home).stdout)["unread"]
        assert [(one["path"], "No such file" in one["reason"]) for one in unread] == [("never.jpg", True)]
        assert "never.jpg is not read" in backhaul("why", "photo", "2", cwd=van.home).stdout
    backhaul("sync", "--wait", cwd=office.home)
    digest = hashlib.sha256(picture).hexdigest()
    assert office.rows("photo") == [(1, 1, "door.jpg", digest, len(picture))]
    assert office.rows("remark") == [(1, 1, "of the door")]
    assert [path.read_bytes() for path in (server.folder / "data").rglob(digest)] == [picture]
