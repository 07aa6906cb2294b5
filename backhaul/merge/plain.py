"""Strategies over plain values: of two writes, one stands as it is. Each is a total order of the writes, and the
greatest stands, so that they are the same in whatever order they come.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from backhaul.merge.register import Change, Register, canonical, lost, plain_unusable, same, written
from backhaul.wire import Kind

SERVER = "server"  # who writes when the server itself does; no replica is called that


class Ordered(ABC):
    """The write with the greatest rank stands. Of two that write the same value, the greater rank is kept, untold."""

    def write(self, held: Register | None, change: Change, said: Any, version: int) -> Register:
        if held is None:
            return written(change, said, version)
        theirs = self.rank(change.hlc, change.writer, said)
        mine = self.rank(held.stamp[0], held.stamp[1], held.value)
        if same(held.value, said):
            stamp = (change.hlc, change.writer) if theirs > mine else held.stamp[:2]
            return Register((*stamp, held.stamp[2]), held.value, held.kept)
        return written(change, said, version) if theirs > mine else lost(held, change, version)

    def unusable(self, kind: Kind, said: Any) -> str | None:  # noqa: ARG002 - the same whatever the op does
        return plain_unusable(said)

    @abstractmethod
    def rank(self, hlc: int, writer: str, value: Any) -> Any:
        """What is compared: the greatest of all writes stands."""


class LastWrite(Ordered):
    """`lww`: Shapiro, Preguica, Baquero, Zawirski, "A comprehensive study of convergent and commutative replicated data
    types" (2011), LWW-register."""

    def rank(self, hlc: int, writer: str, value: Any) -> Any:
        return hlc, writer, canonical(value)


def of_before(held: Register, change: Change, said: Any) -> bool:
    """Whether this writes the whole value of a field of which only whole values are known: who wrote it did not know
    yet that its strategy is told what was done."""
    return change.kind == "update" and type(said) is not dict and type(held.kept) is not dict


class ServerWins(Ordered):
    """What the server itself has written stands; among replicas, the last write."""

    def rank(self, hlc: int, writer: str, value: Any) -> Any:
        return writer == SERVER, hlc, writer, canonical(value)


class Immutable(Ordered):
    """The first value stands; NULL is no value yet."""

    def rank(self, hlc: int, writer: str, value: Any) -> Any:
        return value is not None, -hlc, _Reversed((writer, canonical(value)))

    def forbids(self, held: Register, change: Change, said: Any) -> bool:
        """Whether who writes has seen the value that is there, and would change it."""
        if change.kind == "backfill" or held.value is None or same(held.value, said):
            return False
        return held.stamp[2] <= change.base or change.is_by(*held.stamp[1:])


class Extreme(Ordered):
    """`max` and `min`, by value: NULL is less than anything to both, then come numbers (booleans count as 0 and 1),
    then text, then bytes. decimal: the column's text is a decimal number."""

    def __init__(self, end: Literal["max", "min"], *, decimal: bool) -> None:
        self._end = end
        self._decimal = decimal

    def rank(self, hlc: int, writer: str, value: Any) -> Any:
        placed = self._placed(value)
        if self._end == "min":
            placed = (placed[0] > 0, _Reversed(placed))
        return placed, canonical(value), hlc, writer

    def _placed(self, value: Any) -> tuple[int, Any]:
        if value is None:
            return 0, 0
        if isinstance(value, bool | int | float):
            return 1, value
        if isinstance(value, dict):
            return (3, value["hex"]) if "hex" in value else (1, float(value["real"]))
        number = _number(value) if self._decimal else None
        return (2, value) if number is None else (1, number)


class _Reversed(tuple[Any, ...]):
    """Sorts the other way round."""

    __slots__ = ()

    def __lt__(self, other: tuple[Any, ...]) -> bool:
        return tuple(self) > tuple(other)

    def __gt__(self, other: tuple[Any, ...]) -> bool:
        return tuple(self) < tuple(other)


def _number(said: str) -> Decimal | None:
    try:
        number = Decimal(said)
    except InvalidOperation:
        return None
    return None if number.is_nan() else number
