"""What a probe has read of the machine: one of three answers, how old it is, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import msgspec

Answer = Literal["yes", "no", "unknown"]

STALE_MS = 60_000  # an answer that is older is no answer


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One condition as a probe sees it.

    since: when the answer became what it is. read_at: when it was last read; an answer that is too old is no answer.
    good_for: how old it may be, longer where it is read less often. Milliseconds. source: who says so, as people know
    it ("NetworkManager", "psutil"). detail: a phrase for people.
    """

    name: str
    answer: Answer
    since: int
    read_at: int
    source: str
    detail: str = ""
    good_for: int = STALE_MS


Readings = Mapping[str, Reading]  # by the condition's name

_decoder = msgspec.json.Decoder(tuple[Reading, ...])


def as_of(reading: Reading, now: int) -> Reading:
    """The reading itself, or unknown where it is too old: since it became so."""
    if reading.answer == "unknown" or not is_stale(reading.read_at, now, reading.good_for):
        return reading
    return replace(
        reading,
        answer="unknown",
        since=min(reading.read_at + reading.good_for, now),
        detail=f"nothing was read since; it was {reading.answer} then",
    )


def is_stale(read_at: int, now: int, good_for: int = STALE_MS) -> bool:
    return abs(now - read_at) > good_for  # a clock may have been set back


def latest(readings: Iterable[Reading], now: int) -> dict[str, Reading]:
    """Of several readings of one condition the latest, where those that say nothing any more come last."""
    found: dict[str, Reading] = {}
    for reading in readings:
        other = found.get(reading.name)
        if other is None or _weight(reading, now) > _weight(other, now):
            found[reading.name] = reading
    return found


def encode_readings(readings: Readings) -> str:
    return msgspec.json.encode(list(readings.values())).decode()


@lru_cache(maxsize=32)  # each run reads them, and a worker writes them every few seconds
def decode_readings(text: str) -> tuple[Reading, ...]:
    return _decoder.decode(text)


def _weight(reading: Reading, now: int) -> tuple[bool, int]:
    return as_of(reading, now).answer != "unknown", reading.read_at
