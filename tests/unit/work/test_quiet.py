"""Quiet hours, on ordinary nights and on those on which the clock is moved."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from backhaul.errors import Misused
from backhaul.work.quiet import checked_hours, quiet_reading

BERLIN = ZoneInfo("Europe/Berlin")


def moment(written: str) -> int:
    """With its offset: an hour may come twice."""
    return int(datetime.fromisoformat(written).timestamp() * 1000)


def quiet(hours: list[str], at: str) -> tuple[bool, str]:
    """Whether it is quiet, and since when."""
    read = quiet_reading(hours, moment(at), BERLIN)
    assert read is not None
    since = datetime.fromtimestamp(read.since / 1000, BERLIN).isoformat(timespec="minutes")
    return read.answer == "no", since


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-06-10T21:59:59+02:00", (False, "2026-06-10T06:00+02:00")),
        ("2026-06-10T22:00:00+02:00", (True, "2026-06-10T22:00+02:00")),
        ("2026-06-11T00:00:00+02:00", (True, "2026-06-10T22:00+02:00")),
        ("2026-06-11T05:59:59+02:00", (True, "2026-06-10T22:00+02:00")),
        ("2026-06-11T06:00:00+02:00", (False, "2026-06-11T06:00+02:00")),
    ],
)
def test_hours_over_midnight(at: str, expected: tuple[bool, str]) -> None:
    assert quiet(["22:00-06:00"], at) == expected


def test_several_hours_and_none() -> None:
    hours = ["12:00-13:00", "22:00-06:00"]
    assert quiet(hours, "2026-06-10T12:30:00+02:00") == (True, "2026-06-10T12:00+02:00")
    assert quiet(hours, "2026-06-10T14:00:00+02:00") == (False, "2026-06-10T13:00+02:00")
    assert quiet_reading([], 0) is None


@pytest.mark.parametrize(
    ("at", "is_quiet"),
    [
        ("2026-10-25T02:14:59+02:00", False),
        ("2026-10-25T02:15:00+02:00", True),
        ("2026-10-25T02:50:00+02:00", True),  # the clock says that it is over, and will say it again
        ("2026-10-25T02:10:00+01:00", True),
        ("2026-10-25T02:44:59+01:00", True),
        ("2026-10-25T02:45:00+01:00", False),
    ],
)
def test_an_hour_that_comes_twice_is_quiet_once(at: str, is_quiet: bool) -> None:
    assert quiet(["02:15-02:45"], at)[0] is is_quiet


@pytest.mark.parametrize(
    ("hours", "at", "is_quiet"),
    [
        ("22:00-02:30", "2026-03-29T03:29:59+02:00", True),
        ("22:00-02:30", "2026-03-29T03:30:00+02:00", False),
        ("02:30-05:00", "2026-03-29T03:29:59+02:00", False),
        ("02:30-05:00", "2026-03-29T03:30:00+02:00", True),
        ("22:00-06:00", "2026-03-29T06:00:00+02:00", False),
    ],
)
def test_an_hour_that_is_skipped_is_taken_as_if_it_were_there(hours: str, at: str, is_quiet: bool) -> None:
    assert quiet([hours], at)[0] is is_quiet


@pytest.mark.parametrize("written", ["22-6", "24:00-06:00", "6:00-7:00", "06:00-06:00", "22:00-06:60", ""])
def test_what_are_no_hours_is_refused(written: str) -> None:
    with pytest.raises(Misused, match=r"no hours|no length"):
        checked_hours(written)
