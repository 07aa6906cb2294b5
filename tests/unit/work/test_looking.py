"""Files on a file system that hangs: the others are looked at, nobody waits for long, and it is said."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backhaul.work import ledger, looking, signatures
from backhaul.work.changes import look_at_files
from backhaul.work.constraints import FileTrigger
from backhaul.work.looking import Looker
from tests.unit.work.bench import Bench
from tests.unit.work.test_changes import waiting
from tests.waiting import eventually


class DeadMount:
    """What is under it answers only once it is back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.back = threading.Event()
        self.looks: list[str] = []

    def look(self, trigger: FileTrigger) -> str:
        if Path(trigger.path).is_relative_to(self.path):
            self.looks.append(str(trigger.path))
            self.back.wait()
        return signatures.look(trigger)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[DeadMount]:
    made = DeadMount(tmp_path / "mount")
    made.path.mkdir()
    yield made
    made.back.set()


@pytest.fixture
def bench(database: Any, clock: Any) -> Bench:
    return Bench(database, clock)


def seen(bench: Bench, file: Path) -> bool:
    with bench.database.reading() as connection:
        return ledger.watched(connection).files[FileTrigger(str(file))] != {""}


def test_a_mount_that_hangs_costs_only_what_waits_for_files_there(
    bench: Bench, mount: DeadMount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "HANGING_SECONDS", 0.0)
    monkeypatch.setattr(looking, "FILE_SECONDS", 0.25)
    looker, here = Looker(mount.look), tmp_path / "list.csv"
    there = waiting(bench, FileTrigger(mount.path / "a.csv"), FileTrigger(mount.path / "b.csv"))
    work = waiting(bench, FileTrigger(here))

    def look() -> int:
        return look_at_files(bench.database, bench.clock.now(), look=looker.look)

    eventually(lambda: look() or (len(mount.looks) == 2 and seen(bench, here)))
    here.write_text("1")
    eventually(lambda: look() == 1)
    assert bench.row(work).due_at == bench.clock.now() + 10_000
    assert bench.row(there).next_run_at is None
    assert len(mount.looks) == len(set(mount.looks)) == 2  # and no second look while the first has not come back
    mount.back.set()
    eventually(lambda: not looker._begun)
    look()
    Path(mount.path / "b.csv").write_text("1")
    eventually(lambda: look() and bench.row(there).next_run_at)
    assert bench.row(there).due_at == bench.clock.now() + 10_000


def test_a_look_that_takes_its_time_is_answered_at_the_next(
    mount: DeadMount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "FILE_SECONDS", 0.25)
    looker = Looker(mount.look)
    slow, quick = FileTrigger(mount.path), FileTrigger(tmp_path / "a")
    eventually(lambda: quick in looker.look([slow, quick]).said)
    assert mount.looks == [str(slow.path)]
    mount.back.set()
    eventually(lambda: slow in looker.look([slow, quick]).said)
    eventually(lambda: not looker._begun)


def test_an_answer_that_is_old_or_that_nobody_asks_for_is_none(
    mount: DeadMount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "FILE_SECONDS", 0.01)
    looker = Looker(mount.look)
    slow, other = FileTrigger(mount.path / "a"), FileTrigger(tmp_path / "b")

    def late() -> None:
        """The answer to a look that nobody waited for is there."""
        mount.back.clear()
        looker.look([slow])
        mount.back.set()
        eventually(lambda: not looker._begun)

    late()
    eventually(lambda: other in looker.look([other]).said)
    assert looker._said == {}
    late()
    monkeypatch.setattr(looking, "KEPT_SECONDS", 0.0)
    eventually(lambda: slow in looker.look([slow]).said)
    assert len(mount.looks) == 3


def test_who_looks_once_is_answered_by_no_look_from_before(mount: DeadMount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "FILE_SECONDS", 0.01)
    looker, file = Looker(mount.look), FileTrigger(mount.path / "a")
    looker.look([file])
    mount.back.set()
    eventually(lambda: not looker._begun)
    Path(file.path).write_text("1")
    monkeypatch.setattr(looking, "FILE_SECONDS", 60.0)
    assert looker.look([file], afresh=True).said == {file: signatures.look(file)}


def test_a_look_from_before_that_comes_back_meanwhile_is_no_answer_to_who_looks_once(
    mount: DeadMount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "FILE_SECONDS", 0.01)
    file, other = FileTrigger(mount.path / "a"), FileTrigger(tmp_path / "b")
    looker = Looker(lambda one: _back(mount, looker, file) if one == other else mount.look(one))
    looker.look([file])
    monkeypatch.setattr(looking, "FILE_SECONDS", 60.0)
    assert looker.look([file, other], afresh=True).said == {other: "seen"}


def _back(mount: DeadMount, looker: Looker, file: FileTrigger) -> str:
    mount.back.set()
    eventually(lambda: file not in looker._begun)
    return "seen"


def test_so_many_that_hang_take_no_more_threads_and_no_more_time_than_they_may(
    mount: DeadMount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "FILE_SECONDS", 0.001)
    monkeypatch.setattr(looking, "MOST_HANGING", 3)
    looker = Looker(mount.look)
    for _ in range(3):
        assert looker.look([FileTrigger(mount.path / str(n)) for n in range(20)]).said == {}
    assert len(mount.looks) == 3


def test_a_look_that_fails_is_an_answer() -> None:
    def fail(_: FileTrigger) -> str:
        raise ValueError("embedded null byte")

    trigger = FileTrigger("/a")
    assert Looker(fail).look([trigger]).said == {trigger: "unreadable ValueError"}


def test_whoever_was_not_looked_at_for_want_of_time_comes_first_at_the_next_look() -> None:
    files, looks = [FileTrigger(f"/{n}") for n in range(3)], list[FileTrigger]()
    looker = Looker(lambda one: looks.append(one) or "seen")
    looker.look(files[:1])
    looker.look(files)
    assert looks == [files[0], files[1], files[2], files[0]]
