"""The seam of all probes: what one is asked for, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from backhaul.work.reading import STALE_MS, Answer


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a source says of one condition, before it is damped. read_at: when the source was last heard.
    good_for: milliseconds, for which that is believed without another word."""

    name: str
    answer: Answer
    read_at: int
    source: str
    detail: str = ""
    good_for: int = STALE_MS


class Probe(Protocol):
    """Neither method blocks, raises, or reads anything that could hang: that is done beside (aside.py, bus.py)."""

    @property
    def names(self) -> tuple[str, ...]:
        """The conditions that it answers for."""

    def look(self, now: int) -> None:
        """Begin to ask the machine anew, if it is time to. Who made the probe is told when there is an answer."""

    def settled(self) -> bool:
        """Whether the first look is over, with or without an answer."""

    def said(self, now: int) -> list[Said]:
        """One answer for each name, from what is known."""
