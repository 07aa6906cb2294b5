"""The cache of kept contents: who goes, who never does, and what a death in between leaves."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from backhaul.database import Database, open_database
from backhaul.media import cache, contents, uploads
from backhaul.media.cache import AT_ONCE, Evicted, Limits, evict
from backhaul.media.put import put_bytes
from backhaul.media.reading import opened_here
from backhaul.media.store import Store
from backhaul.media.tidy import look, tidy
from backhaul.schema import replica_metadata
from tests.unit.media.conftest import NOW, no_work

Keep = Callable[..., str]
ALL = Limits(most=0, floor=0)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    on_server = request.param == "postgresql"
    url = request.getfixturevalue("cluster").database() if on_server else f"sqlite:///{tmp_path / 'replica.sqlite'}"
    database = open_database(url)
    replica_metadata.create_all(database.engine)
    yield database
    database.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "media")


@pytest.fixture
def keep(database: Database, store: Store) -> Keep:
    """A content of ten bytes that was sent, and last used so many milliseconds after NOW."""

    def keep(number: int, *, sent: bool = True, used: int = 0) -> str:
        made = put_bytes(database, store, f"{number:010}".encode(), enqueue=no_work, now=NOW)
        with database.writing() as connection:
            if sent:
                uploads.finish(connection, made.id, now=NOW)
                contents.on_server(connection, made.sha256)
            contents.use(connection, made.sha256, now=NOW + used)
        return made.sha256

    return keep


def here(database: Database, store: Store, names: list[str]) -> list[bool]:
    """Of each, whether it is: as a row and as a file."""
    with database.reading() as connection:
        rows = [contents.get(connection, name) is not None for name in names]
    assert rows == [store.path(name).exists() for name in names]
    return rows


def test_the_least_recently_used_goes_first_and_no_more_than_needs_to(
    database: Database, store: Store, keep: Keep
) -> None:
    names = [keep(number, used=used) for number, used in enumerate([3, 1, 4, 2])]
    assert evict(database, store, Limits(most=40, floor=0)) == Evicted()
    assert here(database, store, names) == [True] * 4
    assert evict(database, store, Limits(most=39, floor=0)) == Evicted(contents=1)
    assert here(database, store, names) == [True, False, True, True]
    assert evict(database, store, Limits(most=20, floor=0)) == Evicted(contents=1)
    assert here(database, store, names) == [True, False, True, False]
    assert look(database, store).number == 0


def test_what_is_read_stays_longer(database: Database, store: Store, keep: Keep) -> None:
    names = [keep(number, used=number) for number in range(3)]
    file = opened_here(database, store, names[0], now=NOW + 100_000)
    assert file is not None
    evict(database, store, Limits(most=10, floor=0))
    assert here(database, store, names) == [True, False, False]
    evict(database, store, ALL)
    with file:
        assert file.read() == b"0000000000"  # who has it open reads on


def test_what_the_server_does_not_have_is_pinned_or_is_still_to_be_sent_never_goes(
    database: Database, store: Store, keep: Keep
) -> None:
    unsent, pinned, again, free = keep(1, sent=False), keep(2), keep(3), keep(4)
    with database.writing() as connection:
        assert contents.pin(connection, pinned)
        assert not contents.pin(connection, "0" * 64)
    put_bytes(database, store, b"0000000003", enqueue=no_work, now=NOW)  # put once more, and not sent yet
    assert evict(database, store, ALL) == Evicted(contents=1, excess=30)
    assert here(database, store, [unsent, pinned, again, free]) == [True, True, True, False]
    with database.reading() as connection:
        kept = contents.kept(connection)
    assert (kept.contents, kept.bytes, kept.evictable, kept.pinned) == (3, 30, 0, 10)
    with database.writing() as connection:
        contents.pin(connection, pinned, pinned=False)
    assert evict(database, store, ALL).contents == 1


def test_the_disk_has_a_floor_of_free_space(
    database: Database, store: Store, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [keep(number, used=number) for number in range(4)]

    def usage(_folder: Path) -> SimpleNamespace:
        return SimpleNamespace(free=100 - 10 * sum(store.path(name).exists() for name in names))

    monkeypatch.setattr(cache.shutil, "disk_usage", usage)
    assert shutil.disk_usage is usage
    assert evict(database, store, Limits(most=10**9, floor=60)) == Evicted()
    assert evict(database, store, Limits(most=10**9, floor=75)) == Evicted(contents=2)
    assert here(database, store, names) == [False, False, True, True]


def test_many_go_part_by_part(database: Database, store: Store) -> None:
    names = [sha256(bytes([number % 256, number // 256])).hexdigest() for number in range(AT_ONCE + 7)]
    store.folder.mkdir()
    with database.writing() as connection:
        for name in names:
            contents.keep(connection, name, size=1, now=NOW)
            contents.on_server(connection, name)
    assert evict(database, store, ALL) == Evicted(contents=AT_ONCE + 7)


def test_while_something_arrives_nothing_goes(database: Database, store: Store, keep: Keep) -> None:
    names = [keep(1)]
    with store.arriving():
        assert evict(database, store, ALL) == Evicted(excess=10, whole=False)
    assert here(database, store, names) == [True]


class Killed(BaseException):
    """The process is gone: nothing in it may catch this."""


def test_a_death_between_row_and_file_leaves_what_is_tidied_away(
    database: Database, store: Store, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = keep(1)

    def die(_content: str) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(store, "remove", die)
        with pytest.raises(Killed):
            evict(database, store, ALL)
    assert look(database, store).orphans == [name]
    tidy(database, store)
    assert look(database, store).number == 0
    assert here(database, store, [name]) == [False]
