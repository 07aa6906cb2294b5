from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.probed import FrozenClock
from tests.waiting import eventually
from workers.probes.storage import Storage

DATABASE, OURS = Path("/database"), Path("/ours")
Found = int | OSError | None
STALE = OSError(errno.ESTALE, "Stale file handle")
NOT_THERE = FileNotFoundError(errno.ENOENT, "No such file or directory")


class Disks:
    """Two file systems: what is free there, or what is raised; None: no answer, until the end."""

    def __init__(self, clock: FrozenClock) -> None:
        self.ended = threading.Event()
        self.found: dict[Path, Found] = {}
        self._clock = clock
        self._storage = Storage([DATABASE, OURS], floor=1_000, clock=clock, heard=lambda: None, free=self._look)

    def answer(self, database: Found, ours: Found) -> tuple[str, str]:
        self.found = {DATABASE: database, OURS: ours}
        self._storage.look(self._clock.advance(10_000))
        eventually(lambda: all(place.aside.overdue or not place.aside.running for place in self._storage._places))
        (said,) = self._storage.said(self._clock.now())
        return said.answer, said.detail

    def _look(self, place: Path) -> int:
        found = self.found[place]
        if isinstance(found, int):
            return found
        if found is not None:
            raise found
        self.ended.wait(30)
        return 0


@pytest.fixture
def disks(clock: FrozenClock) -> Iterator[Disks]:
    made = Disks(clock)
    yield made
    made.ended.set()


@pytest.mark.parametrize("broken", [STALE, OSError(errno.EIO, "Input/output error"), None])
@pytest.mark.parametrize(("free", "wanted", "named"), [(999, "no", OURS), (2_000, "unknown", DATABASE)])
def test_a_file_system_that_fails_or_hangs_hides_no_full_one(
    disks: Disks, broken: Found, free: int, wanted: str, named: Path
) -> None:
    answer, detail = disks.answer(broken, free)
    assert answer == wanted
    assert str(named) in detail


def test_a_place_that_is_not_there_yet_counts_for_nothing(disks: Disks) -> None:
    assert disks.answer(NOT_THERE, 2_000)[0] == "yes"
    assert disks.answer(NOT_THERE, 999)[0] == "no"
    assert disks.answer(NOT_THERE, NOT_THERE)[0] == "unknown"


def test_the_fullest_is_what_is_told(disks: Disks) -> None:
    assert disks.answer(5_000_000_000, 3_000_000_000) == ("yes", "3.00 GB free at /ours")


def test_each_place_is_low_until_it_is_clearly_not(disks: Disks) -> None:
    assert [disks.answer(*free)[0] for free in ((999, 2_000), (1_050, 2_000), (1_100, 1_050))] == ["no", "no", "yes"]
