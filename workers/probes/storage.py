"""Storage: whether there is room left on every file system that is written to."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from backhaul.clock import Clock
from backhaul.database import sqlite_file
from backhaul.work.reading import Answer
from config.settings import Settings
from workers.probes.aside import Aside
from workers.probes.hysteresis import Band
from workers.probes.probe import Said

LOOK_MS = 10_000
AGAIN = 1.1  # times the floor: so much must be free before storage that was low is not low any more


class Storage:
    """places: files or folders, one on each file system at least. floor: bytes that must be free for it not to be low.

    Free for whoever is not root: file systems keep a part for root alone. Each place is looked at by itself: one that
    does not answer hides no other one that is full.
    """

    names = ("storage_not_low",)

    def __init__(
        self,
        places: Sequence[Path],
        *,
        floor: int,
        clock: Clock,
        heard: Callable[[], None],
        free: Callable[[Path], int] = lambda place: shutil.disk_usage(place).free,
    ) -> None:
        self._places = [
            _Place(
                path=place,
                band=Band(lost=floor - 1, regained=floor * AGAIN, at_first=True),
                aside=Aside(partial(_room, free, place), clock=clock, done=heard, name="storage"),
            )
            for place in dict.fromkeys(places)
        ]

    def look(self, now: int) -> None:
        for place in self._places:
            place.aside.begin_if_due(now, LOOK_MS)

    def settled(self) -> bool:
        return all(place.aside.settled for place in self._places)

    def said(self, now: int) -> list[Said]:
        found = [(place.aside.found, place) for place in self._places]
        known = sorted(((free, place) for free, place in found if free is not None), key=lambda one: one[0])
        low = [(free, place) for free, place in known if not place.band.holds(free)]
        if low:
            free, place = low[0]
            return [_told("no", free, place, place.aside.read_at)]
        silent = [place for free, place in found if free is None]
        if silent:
            return [_unknown(now, f"the file system of {silent[0].path} does not answer")]
        if not known or known[0][0] == math.inf:
            return [_unknown(now, "no place to look at")]
        return [_told("yes", *known[0], min(place.aside.read_at for _, place in known))]


@dataclass(frozen=True, kw_only=True)
class _Place:
    path: Path
    band: Band
    aside: Aside[float]


def _room(free: Callable[[Path], int], place: Path) -> float:
    try:
        return free(place)
    except (FileNotFoundError, NotADirectoryError):
        return math.inf  # a place that is not there yet is on no file system


def _told(answer: Answer, free: float, place: _Place, read_at: int) -> Said:
    detail = f"{free / 1e9:.2f} GB free at {place.path}"
    return Said(name="storage_not_low", answer=answer, read_at=read_at, source="disk", detail=detail)


def _unknown(now: int, detail: str) -> Said:
    return Said(name="storage_not_low", answer="unknown", read_at=now, source="none", detail=detail)


def places_of(settings: Settings) -> list[Path]:
    """What a worker writes to: the database's folder (where it is a file), ours, and the replica's own, with media."""
    places = [settings.state, settings.home]
    file = sqlite_file(settings.database_url) if settings.replica.database else None
    return [*([Path(file).parent] if file else []), *places]
