"""Quiet hours: times of the day, by the clock on the wall, in which work that requires `not_quiet` waits.

They are kept as stretches of real time, so that the night on which the clock is moved has one stretch, too: one that
begins in an hour that comes twice begins with the first, and one that ends there ends with the second; an hour that is
skipped is taken as if the clock had not been moved.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from backhaul.errors import Misused
from backhaul.work.reading import Reading

WRITTEN = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
SOURCE = "quiet hours"


def checked_hours(written: str) -> str:
    """The hours themselves. Raises Misused for what is not like "22:00-06:00"."""
    begin, end = _times(written)
    if begin == end:
        raise Misused(f"{written!r} is no length of time", hint='from one time to another: "22:00-06:00"')
    return written


def quiet_reading(hours: Sequence[str], now: int, zone: tzinfo | None = None) -> Reading | None:
    """What the hours say of `not_quiet`; None when there are none. zone: None is this machine's."""
    if not hours:
        return None
    begun, over = None, 0
    for begin, end in _stretches(hours, now, zone):
        if begin <= now < end:
            begun = begin if begun is None else min(begun, begin)
        elif end <= now:
            over = max(over, end)
    return Reading(
        name="not_quiet",
        answer="yes" if begun is None else "no",
        since=over if begun is None else begun,
        read_at=now,
        source=SOURCE,
        detail=", ".join(hours),
    )


def _stretches(hours: Sequence[str], now: int, zone: tzinfo | None) -> list[tuple[int, int]]:
    today = datetime.fromtimestamp(now / 1000, UTC).astimezone(zone).date()
    days = [today + timedelta(days=number) for number in (-2, -1, 0)]
    return [_stretch(*_times(written), day, zone) for written in hours for day in days]


def _stretch(begin: time, end: time, day: date, zone: tzinfo | None) -> tuple[int, int]:
    last = day if begin < end else day + timedelta(days=1)
    return _moment(day, begin, zone, 0), max(_moment(last, end, zone, fold) for fold in (0, 1))


def _moment(day: date, at: time, zone: tzinfo | None, fold: int) -> int:
    return int(datetime.combine(day, at.replace(fold=fold), zone).timestamp() * 1000)


def _times(written: str) -> tuple[time, time]:
    found = WRITTEN.fullmatch(written)
    if found is None:
        raise Misused(f"{written!r} are no hours", hint='write them like "22:00-06:00"')
    return time(int(found[1]), int(found[2])), time(int(found[3]), int(found[4]))
