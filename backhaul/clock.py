"""Time: the clock seam, and the hybrid logical clock that orders concurrent writes.

Times are integers: milliseconds since 1970-01-01 UTC. Nothing below a client, a task or a command asks the machine
what time it is; `now` is passed in.

A hybrid logical clock stamp (Kulkarni, Demirbas, Madeppa, Avva, Leone: "Logical Physical Clocks and Consistent
Snapshots in Globally Distributed Databases", 2014) is one integer here, `milliseconds << 16 | counter`, and on the
wire `mmmmmmmmmmmm-cccc` in lower-case hexadecimal, which sorts as text exactly as the integers do.
"""

from __future__ import annotations

import re
import time
from typing import Protocol

COUNTER_BITS = 16
BACKFILL_STAMP = 0  # of a row that was there before `init`: older than every captured change, so any edit wins over it
_STAMP = re.compile("[0-9a-f]{12}-[0-9a-f]{4}")


class Clock(Protocol):
    def now(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""


class SystemClock:
    def now(self) -> int:
        return time.time_ns() // 1_000_000


def stamp(milliseconds: int, counter: int = 0) -> int:
    return milliseconds << COUNTER_BITS | counter


def stamp_milliseconds(value: int) -> int:
    return value >> COUNTER_BITS


def stamp_to_text(value: int) -> str:
    return f"{value >> COUNTER_BITS:012x}-{value & 0xFFFF:04x}"


def stamp_from_text(text: str) -> int:
    """Raises ValueError when the text is not twelve and four lower-case hexadecimal digits with a dash between."""
    if not _STAMP.fullmatch(text):  # int() would take a sign, spaces, underscores and other alphabets' digits
        raise ValueError(f"not a clock stamp: {text!r}")
    return int(text[:12] + text[13:], 16)  # the four digits are COUNTER_BITS


def iso(milliseconds: int | None) -> str | None:
    """RFC 3339, UTC, to the second; None stays None."""
    if milliseconds is None:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(milliseconds / 1000))


def offset_said(offset_ms: int) -> str:
    """What an offset (the right clock minus this one) says of this machine's clock: `47 min slow`."""
    seconds = abs(offset_ms) // 1000
    for size, unit in ((86_400 * 365, "years"), (86_400, "days"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} {'slow' if offset_ms > 0 else 'fast'}"
    return "right"
