"""Writing rows of the app's tables: a few statements for each table, whatever a page holds.

What a column cannot hold as it is (more digits than a REAL has, bytes in a column of numbers) is not put there as
something else: it is refused, and the record is set aside with that reason. Nothing is rounded without a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from backhaul.replica import rows_postgresql
from backhaul.replica.misfit import Misfit
from backhaul.replica.names import column_types, field_names
from backhaul.statements import on_postgresql, quoted, run
from backhaul.wire import Table, Value, to_plain

Row = tuple[Any, ...]
_key = msgspec.json.Decoder(list[Value]).decode
DECIMAL = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
SAFE = 15  # so many digits go through a double unharmed
# Of SQLSTATE (PostgreSQL: appendix A): data exceptions, constraints, check options, and what a trigger raises.
REFUSING_CLASSES = ("22", "23", "44", "P0")


@dataclass(kw_only=True)
class TablePlan:
    """What a page does to one table, as parameters of its statements; values as Python has them.

    deleted: keys. whole: by the names of the fields, key and then fields. changed: for each field whether it changed
    and its value, and then the key. missing: as whole, for rows that are put in only if they are not here. outdated:
    asked when it is written: whether the app has written one of its rows since it was made.
    """

    table: Table
    deleted: list[Row] = field(default_factory=list)
    whole: dict[tuple[str, ...], list[Row]] = field(default_factory=dict)
    changed: list[Row] = field(default_factory=list)
    missing: dict[tuple[str, ...], list[Row]] = field(default_factory=dict)
    outdated: Callable[[], bool] = lambda: False

    @property
    def others(self) -> list[str]:
        """The columns that are not the key."""
        return field_names(self.table)

    @property
    def size(self) -> int:
        """How many rows it writes."""
        return len(self.changed) + len(self.deleted) + sum(map(len, self.whole.values()))


def hold(connection: Connection, table: Table, keys: Sequence[Row]) -> set[int]:
    """Have nobody else write these rows until the transaction ends; returns which of them nobody else can write now, by
    their place: on PostgreSQL not those that are not here. keys: plain values. Raises Misfit.

    What the app has committed by then is in the outbox, and what it is in the middle of is waited for: for a moment,
    while it may be waiting for us. Then the database is busy, and the transaction ends.
    """
    if on_postgresql(connection):
        return rows_postgresql.hold(connection, table, keys)
    return set(range(len(keys)))  # SQLite has one writer, and that is us


def hold_all(connection: Connection, tables: Iterable[Table], places: Iterable[tuple[str, str]]) -> None:
    """The same of rows of several tables, before it is asked what waits of them, or what they are. places: table and
    key, as JSON; those of other tables, and what can be no key of a table, are left out."""
    if not on_postgresql(connection):
        return
    keys: dict[str, list[Row]] = {}
    for name, key in dict.fromkeys(places):
        keys.setdefault(name, []).append(tuple(to_plain(part) for part in _key(key)))
    for table in tables:
        fit = [key for key in keys.get(table.name, []) if len(key) == len(table.key)]
        if fit:
            _hold_what_can_be(connection, table, fit)


def _hold_what_can_be(connection: Connection, table: Table, keys: Sequence[Row]) -> None:
    try:
        with connection.begin_nested():
            hold(connection, table, keys)
    except (DBAPIError, Misfit) as error:
        if refusal(error) is None:
            raise
        for half in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
            if 0 < len(half) < len(keys):
                _hold_what_can_be(connection, table, half)


def write(connection: Connection, plans: Sequence[TablePlan]) -> None:
    """Deletes first: a row that took a deleted one's place must find it free. Parents before children, and gone after
    them. Raises Misfit, and what the database raises."""
    ordered = _parents_first(plans)
    for plan in reversed(ordered):
        _delete(connection, plan)
    for plan in ordered:
        _write(connection, plan)


def refusal(error: Exception) -> str | None:
    """Why the app's schema refuses a record; None when the error says something else."""
    if isinstance(error, Misfit):
        return str(error)
    if not isinstance(error, DBAPIError):
        return None
    state = getattr(error.orig, "sqlstate", None) or ""
    if isinstance(error, IntegrityError) or state.startswith(REFUSING_CLASSES) or "NUL (0x00)" in str(error.orig):
        return str(error.orig).partition("\n")[0]
    return None


def is_the_key(connection: Connection, table: Table) -> str:
    """SQL with a place for each value of `key_values`."""
    if on_postgresql(connection):
        types = column_types(table)
        places = [f"CAST(CAST(? AS text) AS {rows_postgresql.cast_type(types[column])})" for column in table.key]
    else:
        places = ["?"] * len(table.key)
    return " AND ".join(f"{quoted(column)} = {place}" for column, place in zip(table.key, places, strict=True))


def key_values(connection: Connection, table: Table, key: Sequence[Any]) -> Row:
    """key: wire values. Raises Misfit."""
    plain = [to_plain(part) for part in key]
    if not on_postgresql(connection):
        return tuple(plain)
    types = column_types(table)
    return tuple(rows_postgresql.text_of(part, types[column]) for part, column in zip(plain, table.key, strict=True))


def _parents_first(plans: Sequence[TablePlan]) -> list[TablePlan]:
    """As far as there is such an order: tables that refer to each other in a circle stay as they come."""
    waiting, ordered = list(plans), list[TablePlan]()
    while waiting:
        names = {plan.table.name for plan in waiting}
        free = [plan for plan in waiting if not _parents(plan.table) & names]
        ordered += free or waiting[:1]
        waiting = [plan for plan in waiting if plan not in (free or waiting[:1])]
    return ordered


def _parents(table: Table) -> set[str]:
    return {reference.table for reference in table.references} - {table.name}


def _delete(connection: Connection, plan: TablePlan) -> None:
    if not plan.deleted:
        return
    if on_postgresql(connection):
        rows_postgresql.delete(connection, plan.table, plan.deleted)
    else:
        statement = f"DELETE FROM {quoted(plan.table.name)} WHERE {is_the_key(connection, plan.table)}"  # noqa: S608 - the same
        run(connection, statement, plan.deleted)


def _write(connection: Connection, plan: TablePlan) -> None:
    table, postgresql = plan.table, on_postgresql(connection)
    upsert = rows_postgresql.upsert if postgresql else _upsert
    for names, rows in plan.whole.items():
        upsert(connection, table, names, rows, replace=True)
    if plan.changed and plan.others:
        update = rows_postgresql.update if postgresql else _update
        update(connection, table, plan.others, plan.changed)
    for names, rows in plan.missing.items():
        upsert(connection, table, names, rows, replace=False)


def _upsert(connection: Connection, table: Table, names: Sequence[str], rows: list[Row], *, replace: bool) -> None:
    columns = [*table.key, *names]
    assign = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in names)
    statement = f"""
        INSERT INTO {quoted(table.name)} ({", ".join(map(quoted, columns))}) VALUES ({", ".join("?" * len(columns))})
        ON CONFLICT ({", ".join(map(quoted, table.key))}) DO {"UPDATE SET " + assign if assign and replace else "NOTHING"}
    """  # noqa: S608, E501 - the catalogue's own names, quoted
    types = column_types(table)
    numeric = [number for number, column in enumerate(columns) if _holds_numbers(types[column])]
    for row in rows:
        for number in numeric:
            _check_digits(row[number], table.name, columns[number])
    run(connection, statement, rows)


def _update(connection: Connection, table: Table, names: Sequence[str], rows: list[Row]) -> None:
    """rows: for each name whether it changed and its value; then the key."""
    assign = ", ".join(f"{quoted(name)} = CASE WHEN ? THEN ? ELSE {quoted(name)} END" for name in names)
    types = column_types(table)
    numeric = [number for number, name in enumerate(names) if _holds_numbers(types[name])]
    for row in rows:
        for number in numeric:
            _check_digits(row[2 * number + 1], table.name, names[number])
    run(connection, f"UPDATE {quoted(table.name)} SET {assign} WHERE {is_the_key(connection, table)}", rows)  # noqa: S608 - the same


def _holds_numbers(declared: str) -> bool:
    """Whether SQLite makes a number of a text that looks like one (datatype3.html, 3.1: the column's affinity)."""
    said = declared.upper()
    return "INT" in said or not (any(part in said for part in ("CHAR", "CLOB", "TEXT", "BLOB")) or not said)


def _check_digits(value: Any, table: str, column: str) -> None:
    """Raises Misfit for a decimal of which this column would keep but a part, and for what is no number (SQLite would
    make it NULL)."""
    if type(value) is float and value != value:  # NaN alone is not itself
        raise Misfit(f"{table}.{column} cannot hold NaN (SQLite has none)")
    if type(value) is not str or len(value) <= SAFE or not DECIMAL.fullmatch(value):
        return
    exact = Decimal(value.strip())
    if exact == exact.to_integral_value() and -(2**63) <= exact < 2**63:
        return
    if len(exact.normalize().as_tuple().digits) > SAFE and Decimal(float(exact)) != exact:
        raise Misfit(f"{table}.{column} cannot hold all the digits of a decimal (SQLite keeps it as a double)")
