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
from backhaul.work import ledger

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


def test_an_upload_whose_work_was_cancelled_is_put_once_more_and_no_other(database: Database, media: Media) -> None:
    made = media.put(CONTENT)
    with pytest.raises(Misused, match="pending"):
        media.retry(made.id)
    with database.writing() as connection:
        ledger.cancel_by_id(connection, made.id, now=NOW, by="a person")
    again = media.retry(made.id)
    assert [one.id for one in media.list()] == [again.id]
    assert sorted(works(database)) == [(UPLOAD, "CANCELLED"), (UPLOAD, "ENQUEUED")]
    with database.writing() as connection:
        uploads.finish(connection, again.id, now=NOW)
    with pytest.raises(Misused, match="done"):
        media.retry(again.id)


def test_a_kept_file_whose_path_leads_nowhere_any_more_is_put_once_more_from_what_is_kept(
    database: Database, media: Media, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(CONTENT)
    made = media.put(photo)
    photo.unlink()
    with database.writing() as connection:
        uploads.park(connection, made.id, reason="media-type-forbidden", now=NOW)
    again = media.retry(made.id)
    assert (again.state, again.path, again.name, again.sha256) == ("pending", str(photo), "photo.jpg", HASH)
    assert [one.id for one in media.list()] == [again.id]


@pytest.mark.parametrize("name", ["a\0b", "x" * 256, "\u4f60" * 4096, "\ud800"])
def test_bytes_are_not_put_under_what_is_no_name(database: Database, media: Media, tmp_path: Path, name: str) -> None:
    with pytest.raises(Misused) as caught:
        media.put(CONTENT, name=name)
    assert caught.value.hint
    assert len(str(caught.value)) < 400
    assert media.list() == []
    assert works(database) == []
    assert not list((tmp_path / "media").glob("[0-9a-f]*"))


@pytest.mark.parametrize(
    ("name", "kept"),
    [("..", "content"), ("/", "content"), ("../../etc/passwd", "passwd"), ("\u202egpj.exe", "\u202egpj.exe")],
)
def test_of_a_name_only_what_names_the_file_is_kept(media: Media, name: str, kept: str) -> None:
    assert media.put(CONTENT, name=name).name == kept
