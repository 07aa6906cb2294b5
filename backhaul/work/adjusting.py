"""Values that are raised to a minimum, or cut to a maximum, with a warning, as WorkManager does it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from backhaul.errors import Misused

OURS = str(Path(__file__).parents[1])

NONE: frozenset[str] = frozenset()
ONE_MS = timedelta(milliseconds=1)
LONGEST_MS = 10 * 366 * 86_400_000  # ten years: beyond it a number of milliseconds is a mistake


class WorkAdjusted(UserWarning):
    """A value of a work request was out of its bounds, and is now at the nearest one."""


def milliseconds(what: str, said: timedelta) -> int:
    """Raises Misused for what is no length of time, is negative, or longer than ten years."""
    if not isinstance(said, timedelta):
        raise Misused(f"{what} is {said!r}", hint=f"{what}=timedelta(minutes=15)")
    ms = said // ONE_MS
    if not 0 <= ms <= LONGEST_MS:
        raise Misused(f"{what} is {said}", hint="no less than nothing, and no more than ten years")
    return ms


def moment(what: str, said: datetime) -> int:
    """Milliseconds since 1970. Raises Misused for a time without its zone."""
    if not isinstance(said, datetime) or said.tzinfo is None:
        raise Misused(f"{what} is {said!r}, which is no moment", hint=f"{what}=datetime(..., tzinfo=UTC)")
    ms = int(said.timestamp() * 1000)
    if not 0 <= ms < 2**53:
        raise Misused(f"{what} is {said}", hint="a moment after 1970 that a calendar has")
    return ms


def raised(what: str, ms: int, least: int, most: int) -> int:
    """The value within its bounds; warns when it was not."""
    if type(ms) is not int or abs(ms) > 2**53:
        raise Misused(f"{what} is {ms!r}", hint=f"milliseconds, from {least} to {most}")
    within = min(max(ms, least), most)
    if within != ms:
        said, bound = timedelta(milliseconds=ms), timedelta(milliseconds=within)
        edge = "minimum" if within > ms else "maximum"
        message = f"{what} is {said}, and its {edge} is {bound}: that is taken"
        warnings.warn(message, WorkAdjusted, stacklevel=_outside())
    return within


def words(what: str, said: Iterable[str]) -> frozenset[str]:
    """A set of words. Raises Misused for a single text, which Python would take apart into its letters."""
    if said == () or said == frozenset():
        return NONE
    if isinstance(said, str | bytes) or not isinstance(said, Iterable):
        raise Misused(f"{what} is {said!r}", hint=f'{what}={{"one", "another"}}')
    found = list(said)
    for word in found:
        if not isinstance(word, str):
            raise Misused(f"{word!r} of {what} is no text", hint=f'{what}={{"one", "another"}}')
    return frozenset(found)


def _outside() -> int:
    """How far up the caller is who built the value: the warning is to name that line, and not one of ours. Between
    the two lie dataclasses' own code, which has no file, and functools."""
    level, frame = 2, sys._getframe(2)
    while frame.f_back is not None and _is_between(frame.f_code.co_filename):
        level, frame = level + 1, frame.f_back
    return level


def _is_between(file: str) -> bool:
    return file.startswith((OURS, "<")) or file.endswith("functools.py")
