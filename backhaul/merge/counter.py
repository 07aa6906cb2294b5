"""`counter`: every replica's additions add up. The register is a base, the greatest (stamp, writer, value) of the
inserts, and the sum of all additions; each addition is one op, and an op is applied once.

An update that says the value itself is from before the column was a counter: it is a write of the base, as an insert.

A backfill gives the base only where there is none yet: rows are backfilled again when a table is renewed, and then what
was counted meanwhile is in them already.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation, localcontext
from typing import Any

from backhaul.merge.plain import LastWrite
from backhaul.merge.register import ECHO, Change, Register, canonical, lost, same, written
from backhaul.wire import Kind

MOST, LEAST = 2**63 - 1, -(2**63)
LONGEST = 200  # digits of a decimal, with its point

LAST_WRITE = LastWrite()

Number = int | str


class Counter:
    def write(self, held: Register | None, change: Change, said: Any, version: int) -> Register:
        if type(said) is dict:
            return self._added(held, change, said["add"], version)
        if held is None:
            return written(change, said, version)
        return self._based(held, change, said, version)

    def unusable(self, kind: Kind, said: Any) -> str | None:
        if type(said) is dict:
            if kind == "update" and said.keys() == {"add"} and _is_number(said["add"]):
                return None
            return 'a counter is changed by {"add": ...}, an integer or a decimal as text'
        return None if said is None or _is_number(said) else "a counter is an integer or a decimal"

    def reached(self, held: Register, said: Any) -> Number:
        """What the counter would come to; of a new base, at the most."""
        counted = held.kept["sum"] if type(held.kept) is dict else 0
        if type(said) is dict:
            return plus(held.value or 0, said["add"])
        return plus(said or 0, counted)

    def _added(self, held: Register | None, change: Change, add: Number, version: int) -> Register:
        """Nobody has the sum, but by the feed: it is told to all."""
        if held is None:
            return written(change, add, version, {"sum": add, "adds": [[version, change.writer, add]]})
        kept = held.kept if type(held.kept) is dict else {"base": held.value, "at": held.stamp[:2], "sum": 0}
        kept = {**kept, "sum": plus(kept["sum"], add)}
        if "base" not in kept:
            kept["adds"] = [*kept["adds"], [version, change.writer, add]]
        return self._told(held, change, kept, version)

    def _based(self, held: Register, change: Change, said: Number | None, version: int) -> Register:
        kept = held.kept
        if type(kept) is not dict:
            if change.kind == "backfill":
                return held if same(held.value, said) else lost(held, change, version)
            return LAST_WRITE.write(held, change, said, version)
        if "base" in kept:
            standing = (*kept["at"], canonical(kept["base"]))
            if change.kind == "backfill" or (change.hlc, change.writer, canonical(said)) <= standing:
                return lost(held, change, version)
        elif change.kind == "backfill":  # the row held by then what its replica had added, and what it had pulled
            for at, writer, add in kept["adds"]:
                if change.is_by(writer, at) or at <= change.base:
                    said = plus(said or 0, minus(add))
        kept = {name: value for name, value in kept.items() if name != "adds"}
        return self._told(held, change, {**kept, "base": said, "at": (change.hlc, change.writer)}, version)

    def _told(self, held: Register, change: Change, kept: dict[str, Any], version: int) -> Register:
        value = plus(kept.get("base") or 0, kept["sum"])
        hlc, writer = max(held.stamp[:2], (change.hlc, change.writer))
        if not fits(value):
            return Register((hlc, writer, version), held.value, held.kept or ECHO)
        return Register((hlc, writer, version), value, kept)


def plus(mine: Number, theirs: Number) -> Number:
    """Exactly; decimals keep their digits."""
    if isinstance(mine, int) and isinstance(theirs, int):
        return mine + theirs
    with localcontext(prec=4 * LONGEST):
        return format(Decimal(mine) + Decimal(theirs), "f")


def minus(number: Number) -> Number:
    return -number if isinstance(number, int) else format(-Decimal(number), "f")


def fits(value: Number) -> bool:
    return LEAST <= value <= MOST if isinstance(value, int) else len(value) <= LONGEST


def _is_number(said: Any) -> bool:
    if type(said) is int:
        return LEAST <= said <= MOST
    if type(said) is not str or len(said) > LONGEST:
        return False
    try:
        number = Decimal(said)
    except InvalidOperation:
        return False
    return number.is_finite() and abs(number.adjusted()) < LONGEST // 2
