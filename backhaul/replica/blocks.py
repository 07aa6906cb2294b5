"""Ledger of backhaul_block: the numbers in hand for the keys that this database makes up. No other replica has them.

A table draws from one open block, and has a spare one in hand, so that it can go on while the server is away. SQLite
numbers after the highest row: as soon as a row lies above the open block (another replica's, or one that the app has
numbered itself), the block is of no use any more, and the spare one is begun, if it lies above that row. Whoever
brings such rows in takes care that there is a block above them first (replica/refill.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text

from backhaul.replica import numbering
from backhaul.wire import Block, Table, Wanted

SIZE = 1_000  # numbers of a table's first block
MOST = 100_000
DAY_MS = 86_400_000
RESERVE = 4  # with less than a quarter of its numbers left, a block gives way to the spare one


class Held(NamedTuple):
    first: int
    last: int
    state: str
    given_at: int
    next_size: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def serves(self, at: int) -> bool:
        """Whether the number after `at` is one of these."""
        return self.first - 1 <= at < self.last


def drawing(tables: Iterable[Table]) -> list[Table]:
    """Those whose keys come from blocks."""
    return [table for table in tables if table.keys == "blocks"]


def keep(connection: Connection, given: Sequence[Block], *, now: int) -> None:
    """What the server has handed out: spare, until it is begun."""
    statement = """
        INSERT INTO backhaul_block (table_name, first, last, state, given_at, next_size)
        VALUES (:table, :first, :last, 'spare', :now, :last - :first + 1)
    """
    rows = [{"table": one.table, "first": one.first, "last": one.last, "now": now} for one in given]
    if rows:
        connection.execute(text(statement), rows)


def turn(connection: Connection, tables: Sequence[Table], *, now: int) -> None:
    """Have each table draw from a block that serves it, and drop those that no longer can."""
    held = _held(connection)
    for table in drawing(tables):
        if table.name in held:
            _turn(connection, table, held[table.name], now)


def is_due(connection: Connection, tables: Sequence[Table]) -> bool:
    """Whether `turn` would change anything. It only reads."""
    held = _held(connection)
    return any(
        _is_due(held[table.name], numbering.stands_at(connection, table))
        for table in drawing(tables)
        if table.name in held
    )


def _is_due(held: Sequence[Held], at: int) -> bool:
    present = _present(held, at)
    return _to_begin(held, present, at) is not None or any(_is_done(one, present, at) for one in held)


def _turn(connection: Connection, table: Table, held: Sequence[Held], now: int) -> None:
    at = numbering.stands_at(connection, table)
    chosen = _present(held, at)
    spare = _to_begin(held, chosen, at)
    if spare is not None:
        numbering.go_on_after(connection, table, spare.first - 1)
        begun = """
            UPDATE backhaul_block SET state = 'open', next_size = :size
            WHERE table_name = :table AND first = :first AND state = 'spare'
        """
        before = next((one for one in held if one.state == "open"), None)
        values = {"table": table.name, "first": spare.first, "size": _next_size(before, spare, at, now)}
        connection.execute(text(begun), values)
        chosen, at = spare, spare.first - 1
    if chosen is not None:
        numbering.pass_by_rows(connection, table, chosen.last)
    done = [one.first for one in held if _is_done(one, chosen, at)]
    dropped = "DELETE FROM backhaul_block WHERE table_name = :table AND first = :first"
    if done:
        connection.execute(text(dropped), [{"table": table.name, "first": first} for first in done])


def _present(held: Sequence[Held], at: int) -> Held | None:
    return next((one for one in held if one.state == "open" and one.serves(at)), None)


def _to_begin(held: Sequence[Held], present: Held | None, at: int) -> Held | None:
    """The spare block, when there is no other one, or this one is nearly used up."""
    if present is not None and (present.last - at) * RESERVE >= present.size:
        return None
    return _spare(held, at)


def _is_done(one: Held, chosen: Held | None, at: int) -> bool:
    return one is not chosen and (one.state == "open" or one.first <= at)


def _next_size(before: Held | None, begun: Held, at: int, now: int) -> int:
    """Twice as many when the block before was drawn from until it gave way within a day; half when hardly one was."""
    if before is None:
        return begun.size
    if before.serves(at) or at == before.last:
        return min(before.size * 2, MOST) if now - before.given_at < DAY_MS else before.size
    return max(begun.size // 2, SIZE)


def lacking(
    connection: Connection, tables: Sequence[Table], *, above: Mapping[str, int] | None = None
) -> dict[str, Wanted]:
    """What to ask the server for: tables that have no spare block.

    above: the highest number of rows that are about to come in, by table. Then only those tables are asked about, and
    only if these rows would leave them without a block.
    """
    held = _held(connection)
    wanted: dict[str, Wanted] = {}
    for table in drawing(tables):
        if above is not None and table.name not in above:
            continue
        mine = held.get(table.name, [])
        at = numbering.stands_at(connection, table)
        incoming = (above or {}).get(table.name, 0)
        reached = max(at, incoming) if numbering.follows_rows(connection) else at
        served = above is not None and any(one.state == "open" and one.serves(reached) for one in mine)
        if not served and _spare(mine, reached) is None:
            held_up_to = max((one.last for one in mine), default=0)  # a server that was put back may not know of it
            above_all = max(reached, incoming, held_up_to, numbering.highest(connection, table))
            wanted[table.name] = Wanted(count=_size(mine), above=above_all)
    return wanted


def draw(connection: Connection, table: Table, count: int) -> list[int]:
    """Take numbers out of the open block, as if rows had been made; none when it has not so many."""
    at = numbering.stands_at(connection, table)
    for one in _held(connection).get(table.name, []):
        if one.state == "open" and one.serves(at) and at + count <= one.last:
            numbers = numbering.take(connection, table, count, after=at)
            return numbers if numbers[-1] <= one.last else []
    return []


def retable(connection: Connection, old: str, new: str) -> None:
    """The table has another name, and draws from the same numbers."""
    statement = "UPDATE backhaul_block SET table_name = :new WHERE table_name = :old"
    connection.execute(text(statement), {"old": old, "new": new})


def abandon(connection: Connection) -> None:
    """Never draw from these blocks again: this database was copied, or put back to an older state, and another one has
    drawn from them since. Fresh ones come with the next refill."""
    connection.execute(text("DELETE FROM backhaul_block"))


def left(connection: Connection, tables: Sequence[Table]) -> dict[str, int]:
    """How many numbers each table has in hand."""
    held = _held(connection)
    numbers: dict[str, int] = {}
    for table in drawing(tables):
        at = numbering.stands_at(connection, table)
        mine = held.get(table.name, [])
        spare = sum(one.last - one.first + 1 for one in mine if one.state == "spare" and one.first > at)
        numbers[table.name] = spare + sum(one.last - at for one in mine if one.state == "open" and one.serves(at))
    return numbers


def _spare(held: Sequence[Held], at: int) -> Held | None:
    return min((one for one in held if one.state == "spare" and one.first > at), default=None)


def _size(held: Sequence[Held]) -> int:
    begun = [one for one in held if one.state == "open"]
    return max((one.next_size for one in begun or held), default=SIZE)


def _held(connection: Connection) -> dict[str, list[Held]]:
    statement = (
        "SELECT table_name, first, last, state, given_at, next_size FROM backhaul_block ORDER BY table_name, first"
    )
    found: dict[str, list[Held]] = {}
    for name, *rest in connection.execute(text(statement)):
        found.setdefault(name, []).append(Held(*rest))
    return found
