"""A level with two edges, so that what wavers around one of them does not make a condition flip."""

from __future__ import annotations


class Band:
    """It holds until the level falls to `lost` or under it, and again once it has risen to `regained`.

    at_first: what a first level between the two means. For what must stay small, say everything with a minus.
    """

    def __init__(self, *, lost: float, regained: float, at_first: bool) -> None:
        self._lost = lost
        self._regained = max(lost, regained)
        self._holds = at_first

    def holds(self, level: float) -> bool:
        if level <= self._lost:
            self._holds = False
        elif level >= self._regained:
            self._holds = True
        return self._holds
