"""Registering a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from backhaul.database import Database
from backhaul.errors import Misused, WorkUnplaceable
from backhaul.media import uploads
from backhaul.media.put import put
from backhaul.media.uploads import Upload
from tests.unit.media.conftest import NOW, no_work


def count(database: Database) -> int:
    with database.reading() as connection:
        return sum(uploads.counts(connection).values())


def test_a_file_is_registered_with_what_names_its_content(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "größe & more.JPG"
    path.write_bytes(b"x" * 3_000_000)
    upload = put(database, path, enqueue=no_work, now=NOW)
    with database.reading() as connection:
        assert uploads.get(connection, upload.id) == upload
    assert upload.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (upload.size, upload.name, upload.media_type) == (3_000_000, "größe & more.JPG", "image/jpeg")
    assert upload.modified_ns == path.stat().st_mtime_ns
    assert (upload.state, upload.sent, upload.created_at) == ("pending", 0, NOW)


def test_a_relative_path_is_kept_as_it_is_from_everywhere(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unknown.zzz").touch()
    monkeypatch.chdir(tmp_path)
    upload = put(database, "unknown.zzz", enqueue=no_work, now=NOW)
    assert upload.path == str(tmp_path / "unknown.zzz")
    assert upload.media_type == "application/octet-stream"


def test_the_upload_and_its_work_are_written_together(database: Database, tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()

    def enqueue(connection: Connection, upload: Upload) -> None:
        assert uploads.get(connection, upload.id) == upload
        connection.execute(text("INSERT INTO backhaul_work_mark (name, at) VALUES ('x', 0)"))
        raise WorkUnplaceable("no queue is unmetered", hint="declare one")

    with pytest.raises(WorkUnplaceable):
        put(database, tmp_path / "a.txt", enqueue=enqueue, now=NOW)
    assert count(database) == 0


@pytest.mark.parametrize("what", ["missing", "folder", "pipe", "device", "nul", "not-text"])
def test_what_is_no_readable_file_is_refused_and_changes_nothing(database: Database, tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    if what == "folder":
        path.mkdir()
    if what == "pipe":
        os.mkfifo(path)
    if what == "device":
        path = Path("/dev/zero")
    if what == "nul":
        path = Path(f"{path}\0")
    if what == "not-text":
        path = Path(os.fsdecode(bytes(tmp_path) + b"/\xff.jpg"))
        path.touch()
    with pytest.raises(Misused) as caught:
        put(database, path, enqueue=no_work, now=NOW)
    assert caught.value.hint
    assert count(database) == 0


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read, even by root")
def test_a_file_that_fails_while_it_is_read_is_refused(database: Database) -> None:
    with pytest.raises(Misused, match="Input/output error"):
        put(database, "/proc/self/mem", enqueue=no_work, now=NOW)
    assert count(database) == 0


def test_a_file_that_is_written_to_meanwhile_is_refused(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "growing.log"
    path.write_bytes(b"one")

    def grow(_file: object) -> str:
        path.write_bytes(b"one and two")
        return "0" * 64

    monkeypatch.setattr("backhaul.media.put.sha256", grow)
    with pytest.raises(Misused):
        put(database, path, enqueue=no_work, now=NOW)
    assert count(database) == 0
