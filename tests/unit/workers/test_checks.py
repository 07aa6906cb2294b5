"""What `doctor` says of the kept files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backhaul.clock import SystemClock
from backhaul.database import Database, open_database
from backhaul.media.put import put_bytes
from backhaul.media.store import Store
from backhaul.media.tidy import tidy
from backhaul.schema import replica_metadata
from config.media import store_of
from config.settings import Settings
from workers.checks import Patient, _media


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path / 'replica.sqlite'}")
    replica_metadata.create_all(database.engine)
    yield database
    database.close()


def asked(database: Database, home: Path) -> tuple[str, str]:
    nobody: Any = None
    patient = Patient(
        settings=Settings(home=home), database=database, remote=nobody, workers=nobody, clock=SystemClock()
    )
    found = _media(patient)
    assert (found.verdict == "ok") == (found.hint is None)
    return found.verdict, found.said


def kept(database: Database, store: Store) -> str:
    return put_bytes(database, store, b"ten bytes.", enqueue=lambda *_: None, now=0).sha256


def test_kept_files_are_counted_and_none_is_no_fault(database: Database, tmp_path: Path) -> None:
    assert asked(database, tmp_path) == ("ok", "0 files are kept, 0 bytes")
    kept(database, store_of(Settings(home=tmp_path)))
    assert asked(database, tmp_path) == ("ok", "1 files are kept, 10 bytes")


def test_what_a_death_left_is_told_and_left_as_it_is(database: Database, tmp_path: Path) -> None:
    store = store_of(Settings(home=tmp_path))
    store.path(kept(database, store)).unlink()
    (store.folder / "incoming" / "left").touch()
    said = ("warn", "1 files are kept, 10 bytes; 1 unfinished, 0 without a row, 1 not there")
    assert asked(database, tmp_path) == asked(database, tmp_path) == said
    tidy(database, store)
    assert asked(database, tmp_path) == ("ok", "0 files are kept, 0 bytes")


def test_a_folder_that_is_gone_is_told(database: Database, tmp_path: Path) -> None:
    store = store_of(Settings(home=tmp_path))
    kept(database, store)
    shutil.rmtree(store.folder)
    verdict, said = asked(database, tmp_path)
    assert (verdict, "is not there, and 1 files" in said) == ("warn", True)
