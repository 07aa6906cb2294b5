"""Beat's rounds through the folder of kept files."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from backhaul.database import Database, open_database
from backhaul.media import contents
from backhaul.media.cache import Limits
from backhaul.media.store import Store
from backhaul.media.tidy import PARTS
from backhaul.schema import replica_metadata
from workers.tidying import EVERY_MS, EVICT_EVERY_MS, Tidying

NOON = 1_700_000_000_000
LIMITS = Limits(most=10, floor=0)
ORPHAN = sha256(b"orphan").hexdigest()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path / 'replica.sqlite'}")
    replica_metadata.create_all(database.engine)
    yield database
    database.close()


def leave_an_orphan(store: Store) -> None:
    store.path(ORPHAN).parent.mkdir(parents=True, exist_ok=True)
    store.path(ORPHAN).touch()


def test_a_round_takes_a_look_for_each_part_and_the_next_one_begins_an_hour_later(
    database: Database, tmp_path: Path
) -> None:
    store = Store(tmp_path / "media")
    tidying = Tidying(store, LIMITS)
    leave_an_orphan(store)
    for _ in PARTS:
        tidying.step(database, NOON)
    assert not store.path(ORPHAN).exists()
    leave_an_orphan(store)
    tidying.step(database, NOON)  # the round is over
    for _ in PARTS:
        tidying.step(database, NOON + EVERY_MS - 1)
    assert store.path(ORPHAN).exists()
    for _ in PARTS:
        tidying.step(database, NOON + EVERY_MS)
    assert not store.path(ORPHAN).exists()


def test_a_part_that_is_in_use_waits_for_the_next_round(database: Database, tmp_path: Path) -> None:
    store = Store(tmp_path / "media")
    tidying = Tidying(store, LIMITS)
    leave_an_orphan(store)
    with store.arriving():
        for _ in PARTS:
            tidying.step(database, NOON)
    assert store.path(ORPHAN).exists()


def test_once_a_minute_what_is_over_the_budget_goes(database: Database, tmp_path: Path) -> None:
    store = Store(tmp_path / "media")
    tidying = Tidying(store, LIMITS)

    def keep_too_much() -> None:
        with database.writing() as connection:
            contents.keep(connection, ORPHAN, size=11, now=NOON)
            contents.on_server(connection, ORPHAN)
        leave_an_orphan(store)
        store.path(ORPHAN).write_bytes(b"eleven byte")

    keep_too_much()
    tidying.step(database, NOON)
    assert not store.path(ORPHAN).exists()
    keep_too_much()
    tidying.step(database, NOON + EVICT_EVERY_MS - 1)
    assert store.path(ORPHAN).exists()
    tidying.step(database, NOON + EVICT_EVERY_MS)
    assert not store.path(ORPHAN).exists()
