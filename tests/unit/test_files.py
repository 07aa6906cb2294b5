"""`Backhaul.media`: what is put and kept, and what `open` says of a content that is not here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import select

from backhaul.bell import MediaRules, Queue, SilentBell
from backhaul.clock import Clock
from backhaul.database import Database, open_database
from backhaul.errors import MediaNotHere, Misused
from backhaul.files import DOWNLOAD, UPLOAD, Media
from backhaul.media import contents, downloads, uploads
from backhaul.schema import replica_metadata, work

NOW = 1_700_000_000_000
CONTENT = b"a photo"
HASH = sha256(CONTENT).hexdigest()


class FrozenClock(Clock):
    def now(self) -> int:
        return NOW


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path / 'replica.sqlite'}")
    replica_metadata.create_all(database.engine)
    yield database
    database.close()


@pytest.fixture
def bell(tmp_path: Path) -> SilentBell:
    bell = SilentBell([Queue(name="media", kinds=frozenset({UPLOAD, DOWNLOAD}))])
    bell.media = MediaRules(folder=tmp_path / "media", keep=True)
    return bell


@pytest.fixture
def media(database: Database, bell: SilentBell) -> Media:
    return Media(database, bell, FrozenClock())


def works(database: Database) -> list[tuple[str, str]]:
    with database.reading() as connection:
        return [(row.task, row.state) for row in connection.execute(select(work.c.task, work.c.state))]


def why(media: Media, sha256: str = HASH) -> str:
    with pytest.raises(MediaNotHere) as caught:
        media.open(sha256)
    assert sha256 in str(caught.value)
    assert caught.value.hint
    return caught.value.why


def test_what_was_put_is_here(media: Media, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(CONTENT)
    made = media.put(tmp_path / "photo.jpg")
    (tmp_path / "photo.jpg").unlink()
    with media.open(made.sha256) as file:
        assert file.read() == CONTENT


def test_a_file_that_is_sent_from_where_it_is_is_not_kept(media: Media, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(CONTENT)
    assert not media.put(tmp_path / "photo.jpg", keep=False).kept
    assert why(media) == "waiting"


def test_what_is_not_here_is_asked_for_once_as_work_of_its_own(database: Database, media: Media) -> None:
    assert [why(media), why(media)] == ["waiting", "waiting"]
    assert works(database) == [(DOWNLOAD, "ENQUEUED")]


def test_what_is_not_to_be_fetched_is_not_asked_for(database: Database, media: Media) -> None:
    with pytest.raises(MediaNotHere) as caught:
        media.open(HASH, fetch=False)
    assert caught.value.why == "not-fetched"
    assert works(database) == []


@pytest.mark.parametrize(("tag", "said"), [("unmetered", "constraint"), ("budget", "budget")])
def test_a_closed_queue_is_the_reason(media: Media, bell: SilentBell, tag: str, said: str) -> None:
    bell.media = replace(bell.media, download_requires=frozenset({tag}))
    bell.queues = [Queue(name="media", tags=frozenset({tag}))]
    bell.node = replace(bell.node, conditions={tag: False})
    assert why(media) == said


def test_what_the_server_does_not_have_or_refuses_is_the_reason(database: Database, media: Media) -> None:
    assert why(media) == "waiting"
    with database.writing() as connection:
        downloads.note(connection, HASH, reason="the server does not have it")
    assert why(media) == "not-on-server"
    with database.writing() as connection:
        downloads.park(connection, HASH, reason="content-mismatch: other bytes")
    assert why(media) == "refused"
    media.fetch(HASH)
    assert why(media) == "waiting"


@pytest.mark.parametrize("sha256", ["", "../../etc/passwd", HASH.upper(), HASH + "0", HASH + "\n"])
def test_what_is_no_hash_is_misused(media: Media, sha256: str) -> None:
    with pytest.raises(Misused):
        media.open(sha256)
    with pytest.raises(Misused):
        media.fetch(sha256)


def test_bytes_that_were_parked_are_put_once_more(database: Database, media: Media) -> None:
    made = media.put(CONTENT, name="photo.jpg")
    with database.writing() as connection:
        uploads.park(connection, made.id, reason="forbidden", now=NOW)
    again = media.retry(made.id)
    assert (again.state, again.name, again.kept) == ("pending", "photo.jpg", True)
    assert [one.id for one in media.list()] == [again.id]


def test_without_a_folder_bytes_cannot_be_kept(database: Database, tmp_path: Path) -> None:
    media = Media(database, SilentBell([Queue(name="media")]), FrozenClock())
    with pytest.raises(Misused):
        media.put(CONTENT)
    (tmp_path / "photo.jpg").write_bytes(CONTENT)
    assert not media.put(tmp_path / "photo.jpg").kept
    with database.reading() as connection:
        assert contents.kept(connection).contents == 0
