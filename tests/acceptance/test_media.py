"""A heavy upload: through `media` alone, only while its conditions hold, and resumed at the byte after a kill."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.branch import Branch, ServerProcess, backhaul
from tests.waiting import eventually

SIZE = 192 * 2**20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path / "server")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def branch(tmp_path: Path, server: ServerProcess) -> Branch:
    home = tmp_path / "van"
    home.mkdir()
    app = sqlite3.connect(home / "van.db")
    app.execute("CREATE TABLE visit (id INTEGER PRIMARY KEY, note TEXT)")
    app.close()
    return Branch(home, home / "van.db", server)


def upload(branch: Branch) -> dict[str, Any]:
    connection = branch.connect()
    connection.row_factory = sqlite3.Row
    row = dict(connection.execute("SELECT * FROM backhaul_upload").fetchone())
    connection.close()
    return row


def work_of(branch: Branch, upload_id: str) -> str:
    return str(branch.one(f"SELECT state FROM backhaul_work WHERE id = '{upload_id}'"))


def media_worker(branch: Branch) -> dict[str, Any]:
    (found,) = [one for one in branch.workers() if any(queue["name"] == "media" for queue in one["queues"])]
    return found


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.slow
def test_an_upload_waits_for_its_conditions_goes_by_media_alone_and_resumes_at_the_byte(
    branch: Branch, server: ServerProcess, tmp_path: Path
) -> None:
    film = tmp_path / "film.mp4"
    with film.open("wb") as file:
        file.write(os.urandom(2**20))
        file.truncate(SIZE)
    digest = sha256(film)
    backhaul("condition", "set", "unmetered", "off", cwd=branch.home)
    with branch.up():
        put = json.loads(backhaul("media", "put", str(film), "--json", cwd=branch.home).stdout)
        upload_id = upload(branch)["id"]
        assert upload_id in json.dumps(put)
        connection = branch.connect()
        with connection:
            connection.execute("INSERT INTO visit VALUES (1, 'data does not wait for the film')")
        connection.close()
        eventually(lambda: branch.status()["pending"] == 0, timeout=30, what="the data is on the server")
        assert work_of(branch, upload_id) == "ENQUEUED"
        assert upload(branch)["sent"] == 0
        why = backhaul("why", upload_id, cwd=branch.home).stdout
        assert "ENQUEUED" in why
        assert "waits for unmetered (off by override" in why
        assert "media" in why

        backhaul("condition", "set", "unmetered", "on", cwd=branch.home)
        eventually(
            lambda: upload(branch)["sent"] > SIZE // 8, timeout=60, what="an eighth of the film is sent", pause=0.005
        )
        os.kill(media_worker(branch)["pid"], signal.SIGKILL)
        interrupted = upload(branch)
        assert interrupted["sent"] < SIZE, "the kill came too late to prove anything"
        eventually(lambda: upload(branch)["state"] == "done", timeout=90, what="the film is on the server")
    done = upload(branch)
    assert (done["url"], done["sent"], done["queue"]) == (interrupted["url"], SIZE, "media")
    assert "media" in done["worker"]
    stored = list((server.folder / "data").rglob(digest))
    assert [path.stat().st_size for path in stored] == [SIZE]
    assert sha256(stored[0]) == digest
