"""Fitting records of the server into the app's schema: what it takes is written, the rest is told, with the reason.

All together first, which is the way of nearly every page. What is refused is looked for by halves. Then those that
were refused are tried once more together, because what they need may have come beside them, and with the UNIQUE values
that they are about to change set out of the way: two records (or a ring of them) that swap one can only be written so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from backhaul.errors import DatabaseBusy
from backhaul.replica import checkpoint, foreign_keys, rows, uniques
from backhaul.replica.knots import Knots
from backhaul.replica.misfit import Misfit
from backhaul.replica.rows import TablePlan
from backhaul.wire import Record, Table, canonical_key

Refused = tuple[Record, str]
Planned = Callable[[Sequence[Record]], list[TablePlan]]

# What no other record can change: a CHECK, a NOT NULL, a value that the column cannot hold.
BY_ITSELF = re.compile("(?i)check constraint|not null|null value|cannot hold|holds no")
FOREIGN = re.compile("(?i)foreign key")
ROUNDS = 8  # of leaving out what still does not fit, and of trying the others again


class _Outdated(Exception):
    """The app has written one of the rows since the outbox was asked what it wrote. (PostgreSQL: others write, too.)"""


class Fitting:
    """planned: what records do to the tables' rows, and to what is kept beside them. tables: all that are synced.
    touched: rows written so far."""

    def __init__(self, connection: Connection, tables: Sequence[Table], planned: Planned) -> None:
        self._connection = connection
        self._tables = tables
        self._planned = planned
        self.touched = 0

    def write(self, records: Sequence[Record]) -> list[Refused]:
        """Write what fits, with capture muted; returns what does not."""
        reason = self._try(records)
        refused = [] if reason is None else self._by_halves(records, reason)
        hopeless = [(record, reason) for record, reason in refused if BY_ITSELF.search(reason)]
        refused = [(record, reason) for record, reason in refused if not BY_ITSELF.search(reason)]
        for _ in range(ROUNDS):
            left = self._exchange([record for record, _ in refused]) if refused else []
            if len(left) == len(refused):
                break
            refused = left
        return hopeless + self._with_advice(self._by_knots(left))

    def _try(self, records: Sequence[Record], *, exchange: bool = False) -> str | None:
        """Why these records do not fit together; None when they are written. Raises DatabaseBusy."""
        for _ in range(ROUNDS):
            try:
                return self._try_once(records, exchange=exchange)
            except _Outdated:
                continue  # what the app has written meanwhile is in the outbox now, and its rows can be held
        raise DatabaseBusy("the app keeps writing the rows that come in", hint="try again")

    def _try_once(self, records: Sequence[Record], *, exchange: bool) -> str | None:
        try:
            with self._connection.begin_nested():
                checkpoint.mute(self._connection)
                plans = self._planned(records)
                with foreign_keys.checked_in_the_end(self._connection):
                    foreign_keys.refuse_to_take_along(self._connection, plans, self._tables)
                    if exchange:
                        uniques.set_out_of_the_way(self._connection, plans)
                    steps = foreign_keys.steps(self._connection, plans, self._tables) if exchange else [plans]
                    for step in steps:
                        rows.write(self._connection, step)
                checkpoint.unmute(self._connection)
                if any(plan.outdated() for plan in plans):
                    raise _Outdated
        except (DBAPIError, Misfit) as error:
            return _reason(error)
        self.touched += sum(plan.size for plan in plans)
        return None

    def _by_halves(self, records: Sequence[Record], reason: str) -> list[Refused]:
        """reason: why they do not fit together."""
        if len(records) == 1:
            return [(records[0], reason)]
        refused: list[Refused] = []
        for half in (records[: len(records) // 2], records[len(records) // 2 :]):
            said = self._try(half)
            if said is not None:
                refused += self._by_halves(half, said)
        return refused

    def _by_knots(self, refused: Sequence[Refused]) -> list[Refused]:
        """Records that refer to each other, each such knot by itself: halves tear them apart, and one record beside
        them that does not fit keeps them all out."""
        knots = _knots([record for record, _ in refused], self._tables)
        fitted = {id(record) for knot in knots if self._try(knot, exchange=True) is None for record in knot}
        return [(record, reason) for record, reason in refused if id(record) not in fitted]

    def _exchange(self, records: Sequence[Record]) -> list[Refused]:
        """Write them with changed UNIQUE values out of the way. Who does not fit even then keeps his values, and so
        others may not fit because of him: they are looked for once more, without him."""
        waiting, refused = list(records), list[Refused]()
        for _ in range(ROUNDS):
            if not waiting:
                return refused
            reason = self._try(waiting, exchange=True)
            if reason is None:
                return refused
            misfits = self._misfits(waiting, reason)
            refused += misfits
            left_out = {id(record) for record, _ in misfits}
            waiting = [record for record in waiting if id(record) not in left_out]
        return refused + [(record, "others that it waits for do not fit") for record in waiting]

    def _with_advice(self, refused: list[Refused]) -> list[Refused]:
        """What nothing that may come can heal says what a person can do."""
        if not any(FOREIGN.search(reason) for _, reason in refused):
            return refused
        circles = foreign_keys.in_the_way(self._connection, self._tables)
        return [
            (record, f"{reason}; {circles[record.table]}")
            if record.table in circles and FOREIGN.search(reason)
            else (record, reason)
            for record, reason in refused
        ]

    def _misfits(self, records: Sequence[Record], reason: str) -> list[Refused]:
        """Which of these do not fit while the UNIQUE values of all are out of the way; nothing is written."""
        looking, touched = self._connection.begin_nested(), self.touched
        try:
            checkpoint.mute(self._connection)
            uniques.set_out_of_the_way(self._connection, self._planned(records))
            return self._by_halves(records, reason) or [(record, reason) for record in records]
        except (DBAPIError, Misfit) as error:
            return [(record, _reason(error)) for record in records]
        finally:
            looking.rollback()
            self.touched = touched


def _knots(records: Sequence[Record], tables: Sequence[Table]) -> list[list[Record]]:
    """Of these records those that hang together by their foreign keys, two or more each."""
    known = {table.name: table for table in tables}
    places = {(record.table, canonical_key(record.key)): record for record in records}
    knots = Knots()
    for place, record in places.items():
        knots.tie(place)
        table = known.get(record.table)
        if table is None:
            continue
        said = dict(zip(table.key, record.key, strict=True)) | record.fields
        for reference in table.references:
            columns = dict(zip(reference.target, reference.columns, strict=True))
            parent = known.get(reference.table)
            if parent is not None and set(parent.key) == columns.keys():
                named = parent.name, canonical_key([said.get(columns[part]) for part in parent.key])
                if named in places:
                    knots.tie(named, place)
    return [[places[name, str(key)] for name, key in knot] for knot in knots.all() if len(knot) > 1]


def _reason(error: DBAPIError | Misfit) -> str:
    """Why the app's schema refuses; what says something else is raised."""
    reason = rows.refusal(error)
    if reason is None:
        raise error
    return reason
