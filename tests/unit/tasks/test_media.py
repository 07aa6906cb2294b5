"""A message of an upload: whose turn it is before it, and what is said of a link that may not carry it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Retry

from backhaul.bell import MediaRules, Queue, SilentBell
from backhaul.clock import SystemClock
from backhaul.database import Database, open_database
from backhaul.files import UPLOAD, Media
from backhaul.media.uploads import Upload
from backhaul.migrations import upgrade_replica
from backhaul.remotes.memory_media import MemoryMediaRemote
from backhaul.work import ledger
from config.media import FOLDER
from config.queues import declared
from config.settings import Settings
from tasks import media, process

KIB = 2**10
NOW = SystemClock().now() - 60_000


class Ordered(MemoryMediaRemote):
    """order: the names of what was created, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    def create(self, *, size: int, sha256: str, name: str, media_type: str) -> str:
        self.order.append(name)
        return super().create(size=size, sha256=sha256, name=name, media_type=media_type)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path}/app.db")
    upgrade_replica(database)
    yield database
    database.close()


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch, database: Database) -> Ordered:
    remote = Ordered()
    monkeypatch.setattr(process, "media_remote", lambda _settings: remote)
    monkeypatch.setattr(process, "database", lambda _settings: database)
    return remote


@pytest.fixture
def put(database: Database, tmp_path: Path) -> Any:
    bell = SilentBell([Queue(name="media", kinds=frozenset({UPLOAD}))])
    bell.media = MediaRules(folder=tmp_path / FOLDER, keep=True)
    clock = SimpleNamespace(time=NOW)

    def put(size: int, name: str, **options: Any) -> Upload:
        clock.time += 1
        this = SimpleNamespace(now=lambda: clock.time)
        return Media(database, bell, this).put(name.encode() * (size // len(name)), name=name, **options)

    return put


def deliver(tmp_path: Path, this: Upload, **said: Any) -> str:
    settings = Settings(
        home=tmp_path,
        replica={"database": "sqlite:///app.db"},
        media={"requires": ()} | said,
        queues={"media": {"tags": ()}},
    )
    request = SimpleNamespace(delivery_info={"routing_key": "media"}, hostname="media@here")
    app = SimpleNamespace(settings=settings, declared_queues=declared(settings))
    told: str = media.upload_file.run.__func__(SimpleNamespace(app=app, request=request), this.id, 0)
    return told


def states(database: Database, *some: Upload) -> set[str]:
    with database.reading() as connection:
        return {str(row and row.state) for row in (ledger.get(connection, this.id) for this in some)}


def test_what_comes_first_goes_first_whatever_message_has_come(
    database: Database, remote: Ordered, put: Any, tmp_path: Path
) -> None:
    old, new = put(300 * KIB, "old"), put(300 * KIB, "new")
    small, urgent = put(300, "small"), put(300 * KIB, "urgent", priority=1)
    assert deliver(tmp_path, old) == "done"
    assert remote.order == ["urgent", "new", "old"]
    assert states(database, old, new, small, urgent) == {"SUCCEEDED"}
    assert deliver(tmp_path, small) == "done"  # that has been taken along


def test_the_order_may_be_that_in_which_they_were_put(remote: Ordered, put: Any, tmp_path: Path) -> None:
    put(300 * KIB, "old")
    new = put(300 * KIB, "new")
    put(300, "small")
    deliver(tmp_path, new, order="old")
    assert remote.order == ["old", "new"]


def test_what_is_ahead_and_fails_holds_up_nobody(database: Database, remote: Ordered, put: Any, tmp_path: Path) -> None:
    film, gone = put(300 * KIB, "film"), put(300, "gone")
    (tmp_path / FOLDER / gone.sha256[:2] / gone.sha256).unlink()
    assert deliver(tmp_path, film) == "done"
    assert states(database, gone) == {"FAILED"}


def test_a_file_that_is_too_large_for_a_metered_link_is_told_so_and_tried_again_in_a_minute(
    database: Database, remote: Ordered, put: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKHAUL_CONDITION_UNMETERED", "off")
    film, clip = put(301 * KIB, "film"), put(300 * KIB - 300 * KIB % 4, "clip")
    with pytest.raises(Retry) as caught:
        deliver(tmp_path, film, max_bytes={"metered": "300KiB"})
    assert "the link as it is may carry files of 307200" in str(caught.value.exc)
    assert 58 < caught.value.when <= 60
    assert (states(database, clip), states(database, film)) == ({"SUCCEEDED"}, {"ENQUEUED"})
