"""Writing rows of the app's tables in PostgreSQL: one statement for all rows of a table that name the same columns.

Every value goes there as text, in an array for each column, and is cast to the column's type by the database: so a
decimal never meets a float, and what a type does not take is refused by the type itself. The casts are to the type
without its length: the assignment that follows checks that, where a cast would cut silently.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from backhaul.replica.misfit import Misfit
from backhaul.replica.names import column_types
from backhaul.statements import quoted, run
from backhaul.wire import Table

Row = tuple[Any, ...]
INTEGERS = ("smallint", "integer", "bigint")
# Half of what the database lets go by before it looks for a deadlock and ends a transaction that is in one: ours is not
# to wait so long that this might be the app's.
PATIENCE = """
    SELECT set_config('lock_timeout', CAST(CAST(
        extract(epoch FROM CAST(current_setting('deadlock_timeout') AS interval)) * 500 AS integer) AS text), true)
"""
MODIFIER = re.compile(r"\([^()]*\)")


def cast_type(declared: str) -> str:
    """The type without its length, as text of the catalogue."""
    if declared.startswith(('"', "USER")) or "." in declared:  # a type of the app's own: it has no length
        return declared
    plain = " ".join(MODIFIER.sub("", declared).split()).replace(" []", "[]")
    base = plain.removesuffix("[]")
    # CHARACTER without a length would be of length 1, and cut; so would BIT.
    spelt = {"character": "bpchar", "bit": "varbit"}.get(base, base)
    return spelt + plain[len(base) :]


def text_of(value: Any, declared: str) -> str | None:
    """A plain value as this type reads it. Raises Misfit."""
    if value is None:
        return None
    base = cast_type(declared)
    if isinstance(value, bytes):
        if base != "bytea":
            raise Misfit(f"a column of the type {declared} holds no bytes")
        return f"\\x{value.hex()}"
    if base == "bytea":
        raise Misfit(f"a column of the type {declared} holds nothing but bytes")
    if isinstance(value, bool):
        return str(value).lower() if base == "boolean" else str(int(value))
    if isinstance(value, float):
        return str(int(value)) if base in INTEGERS and value.is_integer() else repr(value)
    return str(value)


def delete(connection: Connection, table: Table, keys: Sequence[Row]) -> None:
    statement = f"""
        DELETE FROM {quoted(table.name)} AS kept USING {given(len(table.key))}
        WHERE {same_key(table, 0)}
    """  # noqa: S608 - the catalogue's own names, quoted
    run(connection, statement, arrays(table, table.key, keys))


def upsert(connection: Connection, table: Table, names: Sequence[str], rows: Sequence[Row], *, replace: bool) -> None:
    """rows: key and then the named fields."""
    columns = [*table.key, *names]
    types = column_types(table)
    values = ", ".join(f"CAST(v{number} AS {cast_type(types[column])})" for number, column in enumerate(columns))
    assign = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in names)
    statement = f"""
        INSERT INTO {quoted(table.name)} ({", ".join(map(quoted, columns))}) OVERRIDING SYSTEM VALUE
        SELECT {values} FROM {given(len(columns))}
        ON CONFLICT ({", ".join(map(quoted, table.key))})
        DO {"UPDATE SET " + assign if assign and replace else "NOTHING"}
    """  # noqa: S608 - the catalogue's own names, quoted
    run(connection, statement, arrays(table, columns, rows))
    if table.keys == "generated":
        _move_sequence(connection, table, max(int(row[0]) for row in rows))


def update(connection: Connection, table: Table, names: Sequence[str], rows: Sequence[Row]) -> None:
    """rows: for each name whether it changed and its value; then the key."""
    types = column_types(table)
    assign = ", ".join(
        f"{quoted(name)} = CASE WHEN CAST(v{2 * number} AS boolean)"
        f" THEN CAST(v{2 * number + 1} AS {cast_type(types[name])}) ELSE kept.{quoted(name)} END"
        for number, name in enumerate(names)
    )
    width = 2 * len(names)
    statement = f"""
        UPDATE {quoted(table.name)} AS kept SET {assign} FROM {given(width + len(table.key))}
        WHERE {same_key(table, width)}
    """  # noqa: S608 - the catalogue's own names, quoted
    flags = [[str(row[2 * number]) for row in rows] for number in range(len(names))]
    values = arrays(table, names, [row[1:width:2] for row in rows])
    keys = arrays(table, table.key, [row[width:] for row in rows])
    pairs = [array for pair in zip(flags, values, strict=True) for array in pair]
    run(connection, statement, (*pairs, *keys))


def hold(connection: Connection, table: Table, keys: Sequence[Row], *, alone: bool = False) -> set[int]:
    """Lock these rows until the transaction ends, and wait a moment for whoever is writing them; returns which of them
    are here, by their place. alone: rows that refer to them are in the way, too, while they are being written."""
    run(connection, PATIENCE)
    statement = f"""
        SELECT place FROM {quoted(table.name)} AS kept
        JOIN unnest({", ".join(["CAST(? AS text[])"] * len(table.key))}) WITH ORDINALITY
             AS given ({", ".join(f"v{number}" for number in range(len(table.key)))}, place) ON {same_key(table, 0)}
        ORDER BY place FOR {"UPDATE" if alone else "NO KEY UPDATE"} OF kept
    """  # noqa: S608 - the catalogue's own names, quoted
    return {place - 1 for (place,) in run(connection, statement, arrays(table, table.key, keys))}


def given(width: int) -> str:
    """The values of `arrays` as a table `given`."""
    places = ", ".join(["CAST(? AS text[])"] * width)
    return f"unnest({places}) AS given ({', '.join(f'v{number}' for number in range(width))})"


def same_key(table: Table, first: int) -> str:
    """SQL for: the row `kept` is the one whose key `given` has, from this column on."""
    types = column_types(table)
    return " AND ".join(
        f"kept.{quoted(column)} = CAST(v{first + number} AS {cast_type(types[column])})"
        for number, column in enumerate(table.key)
    )


def arrays(table: Table, columns: Sequence[str], rows: Sequence[Row]) -> tuple[list[str | None], ...]:
    types = column_types(table)
    return tuple([text_of(row[number], types[column]) for row in rows] for number, column in enumerate(columns))


def _move_sequence(connection: Connection, table: Table, highest: int) -> None:
    """What the database numbers next must not meet a record that came from elsewhere: the app's insert would fail."""
    statement = """
        SELECT setval(numbers, ?) FROM (SELECT CAST(pg_get_serial_sequence(?, ?) AS regclass) AS numbers) AS of_the_key
        WHERE numbers IS NOT NULL AND ? > coalesce(pg_sequence_last_value(numbers), 0)
    """
    run(connection, statement, (highest, quoted(table.name), table.key[0], highest))
