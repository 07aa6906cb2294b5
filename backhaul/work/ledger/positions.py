"""How far the outbox was looked at by those who wait for a change of a table.

On SQLite a position is the last id. On PostgreSQL ids are not in the order of commits: a transaction that has taken a
low one may commit after a look has passed it. So a position there says as well which transactions were not to be seen
yet, and what they wrote counts as new whatever its id; a change bears its transaction as its group. Once all of them
have ended, which a later look sees, a position is the last id again. Nobody waits for anybody.

A snapshot does not say how far transactions are numbered: those from `next` on may or may not have begun. So whoever
looks in a transaction of his own takes a number after the look (`number`), and all that had begun have lower ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from backhaul.statements import on_postgresql, run

# One statement, so one snapshot: what is there, what was under way, and how far the ids had come. Two walks of the
# primary key: over what lies after the positions, and, only where something was under way, over what lies between.
_SNAPSHOT = "CAST(pg_current_snapshot() AS text), CAST(CAST(pg_current_xact_id_if_assigned() AS text) AS bigint)"
_NO_SNAPSHOT = "'', 0"
_LAST = "(SELECT max(id) FROM backhaul_outbox)"
_LOOK = """
    SELECT here.*, found.table_name, found.writer, found.last
    FROM (SELECT {snapshot}, {highest}) AS here LEFT JOIN ({found}) AS found ON true
"""
_AFTER = """
    SELECT table_name, 0 AS writer, max(id) AS last FROM backhaul_outbox WHERE id > ? GROUP BY table_name
"""
_LATE = """
    SELECT table_name, writer, max(id) AS last
    FROM (SELECT id, table_name, CASE WHEN group_id ~ '^[0-9]{1,18}$' THEN CAST(group_id AS bigint) END AS writer
          FROM backhaul_outbox WHERE id > ? AND id <= ?) AS between_them
    WHERE writer >= ? OR writer = ANY(?) GROUP BY table_name, writer
"""


@dataclass(frozen=True)
class UnderWay:
    """Transactions that a look did not see: the running ones, and all from `next` on but its own. before: of those from
    `next` on, what had begun has a lower number; 0: not known yet."""

    running: frozenset[int]
    next: int
    own: int = 0
    before: int = 0

    def has(self, writer: int) -> bool:
        return writer in self.running or (writer >= self.next and writer != self.own)

    def has_ended(self, now: UnderWay) -> bool:
        """As a later look sees it."""
        return 0 < self.before < now.next and not any(one < self.before for one in now.running)


@dataclass(frozen=True)
class Position:
    """last: the highest id there was. under_way: who may yet commit lower ones, but none up to `floor`."""

    last: int
    floor: int = 0
    under_way: UnderWay | None = None

    @property
    def text(self) -> str:
        """As the ledger keeps it."""
        if self.under_way is None:
            return str(self.last)
        numbers = self.last, self.floor, self.under_way.next, self.under_way.own, self.under_way.before
        return " ".join(map(str, (*numbers, *sorted(self.under_way.running))))


@dataclass(frozen=True)
class Move:
    """Of those who wait for this table and have looked as far as `since`. changed: something is there that was not."""

    table: str
    since: Position
    to: Position
    changed: bool = True


def position(text: str) -> Position:
    last, *rest = map(int, text.split() or "0")
    if not rest:
        return Position(last)
    floor, following, own, before, *running = rest
    return Position(last, floor, UnderWay(frozenset(running), following, own, before))


def here(connection: Connection) -> Position:
    """As far as there is anything now."""
    snapshot = _SNAPSHOT if on_postgresql(connection) else _NO_SNAPSHOT
    row: Any = run(connection, f"SELECT {snapshot}, {_LAST}").one()
    said, own, last = row
    return Position(last, 0, _under_way(said, own)) if last else Position(0)


def number(connection: Connection) -> int:
    """A number for `bounded`: this transaction's, which has written nothing so far."""
    if not on_postgresql(connection):
        return 0
    return int(run(connection, "SELECT CAST(pg_current_xact_id() AS text)").scalar_one())


def bounded(at: Position, before: int) -> Position:
    """before: a number that was taken after the look."""
    if at.under_way is None or at.under_way.before or not before:
        return at
    return replace(at, under_way=replace(at.under_way, before=before))


def moves(connection: Connection, tables: Mapping[str, frozenset[Position]]) -> list[Move]:
    """What has changed of these, which were looked at as far as these positions; and which positions can be told more
    shortly now, or need a number."""
    positions = frozenset[Position]().union(*tables.values())
    if not positions:
        return []
    found, values = _AFTER, [min(one.last for one in positions)]
    late = [(one, one.under_way) for one in positions if one.under_way is not None]
    if late:
        found = f"{_AFTER} UNION ALL {_LATE}"
        values += [min(one.floor for one, _ in late), max(one.last for one, _ in late)]
        values.append(min(under_way.next for _, under_way in late))
    running = sorted(frozenset[int]().union(*(under_way.running for _, under_way in late)))
    snapshot = _SNAPSHOT if on_postgresql(connection) else _NO_SNAPSHOT
    look = _LOOK.format(snapshot=snapshot, highest=_LAST, found=found)
    rows: Sequence[Any] = run(connection, look, (*values, running) if late else tuple(values)).all()
    now = Position(rows[0][2] or 0, 0, _under_way(rows[0][0], rows[0][1]))
    latest = {row.table_name: row.last for row in rows if row.table_name is not None and not row.writer}
    writers = {(row.table_name, row.writer) for row in rows if row.writer}
    return [
        move
        for table, since_all in tables.items()
        for since in since_all
        if (move := _move(table, since, now, latest.get(table, 0), {by for of, by in writers if of == table}))
    ]


def _move(table: str, since: Position, now: Position, latest: int, writers: set[int]) -> Move | None:
    under_way = since.under_way
    ended = under_way is None or (now.under_way is not None and under_way.has_ended(now.under_way))
    if latest > since.last or (under_way is not None and any(under_way.has(one) for one in writers)):
        to = Position(max(now.last, since.last), since.last if ended else since.floor, now.under_way)
        return Move(table, since, to)
    if under_way is None or not (ended or not under_way.before):
        return None
    return Move(table, since, Position(since.last) if ended else since, changed=False)


def _under_way(snapshot: str, own: int | None) -> UnderWay | None:
    """pg_current_snapshot() is `lowest:next:under,way`."""
    if not snapshot:
        return None
    _, following, running = snapshot.split(":")
    return UnderWay(frozenset(map(int, running.split(",") if running else ())), int(following), own or 0)
