"""The feed of a server in memory: what a page lists and where the next one begins, by the rule of a real server.

A round of pages is reckoned from where it began, its `floor`: a record that changes between two pages is listed
again, with all that has changed since the floor, and whole when it was born since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Struct

from backhaul.errors import Refused
from backhaul.merge import State
from backhaul.remotes.memory_ops import Address
from backhaul.wire import MOST_PAGE

BEGINNING = -1  # the floor of a replica that begins, and is sent its own records, too


class Place(Struct, frozen=True):
    """Where a replica is: it has seen everything up to the floor, and been told of what comes up to `after`."""

    floor: int = BEGINNING
    after: int = 0


@dataclass(frozen=True, kw_only=True)
class Feed:
    """name: of this feed alone, in every cursor of it. head: the last version."""

    name: str
    head: int
    states: Mapping[Address, State]

    def place(self, cursor: str) -> Place:
        """Raises Refused `cursor-expired`: the cursor is of another feed, or of one that had come further."""
        if not cursor:
            return Place()
        try:
            name, floor, after = cursor.split("_")
            place = Place(floor=int(floor), after=int(after))
        except ValueError as error:
            raise _expired("the cursor cannot be read") from error
        if name != self.name or max(place.floor, place.after) > self.head:
            raise _expired("the cursor is of another feed, or of a later state of this one")
        return place

    def cursor(self, place: Place) -> str:
        return f"{self.name}_{place.floor}_{place.after}"

    def page(self, place: Place, replica: str, limit: int) -> tuple[list[tuple[Address, State]], Place]:
        """The records that the next page tells the replica, and where it is then."""
        listed = sorted(
            (state.version, address)
            for address, state in self.states.items()
            if state.version > place.after and (state.born or state.deleted)
        )
        most = min(limit, MOST_PAGE, len(listed))
        reached = listed[most - 1][0] if listed else self.head
        told = [(address, self.states[address]) for version, address in listed if version <= reached]
        fresh = [(address, state) for address, state in told if not _is_own(state, replica, place.floor)]
        if len(told) == len(listed):
            return fresh, Place(floor=self.head, after=self.head)
        return fresh, Place(floor=place.floor, after=reached)


def _expired(why: str) -> Refused:
    return Refused(why, problem="cursor-expired", status=410)


def _is_own(state: State, replica: str, floor: int) -> bool:
    """Whether the asker wrote everything that is new, and so knows it."""
    if floor == BEGINNING:
        return False
    if state.deleted or state.born > floor:
        return state.writer == replica and all(writer == replica for _, writer, _ in state.stamps.values())
    return all(writer == replica for _, writer, version in state.stamps.values() if version > floor)
