"""How a database numbers the rows of a table by itself: whether it can take the numbers from blocks, where it stands,
and how it is sent to the beginning of a block.

SQLite gives a row the number after the highest there is. A table with AUTOINCREMENT counts the highest that ever was,
too, in sqlite_sequence, which can be raised (https://www.sqlite.org/autoinc.html); an INTEGER PRIMARY KEY without it
looks at the rows alone, so nothing can keep it out of another replica's numbers. PostgreSQL numbers from a sequence
(a SERIAL column, an identity), whatever rows there are, and that can always be sent to a block.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, text

from backhaul.errors import TableUnfit
from backhaul.statements import on_postgresql, quoted, run
from backhaul.wire import KeyKind, Reference, Table

ASIDE = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a table's keys come about, why it is taken to be so, and which ways could be said instead."""

    keys: KeyKind
    why: str
    possible: tuple[KeyKind, ...] = ("natural",)


def choose(
    connection: Connection, name: str, key: Sequence[tuple[str, str]], references: Sequence[Reference]
) -> Choice:
    """key: the name and the declared type of each column of the primary key."""
    if len(key) > 1:
        return Choice(keys="natural", why="the key has several columns: the same key is the same record")
    column, declared = key[0]
    if on_postgresql(connection) and declared not in ("smallint", "integer", "bigint"):
        return Choice(keys="natural", why=f"{column} is no number that the database makes up ({declared})")
    if any(column in reference.columns for reference in references):
        return Choice(keys="natural", why=f"{column} names a record of another table")
    if on_postgresql(connection):
        if _sequence(connection, name, column) is None:
            return Choice(keys="natural", why=f"{column} is no number that the database makes up")
        why = f"{column} is numbered by a sequence, and takes its numbers from blocks of this replica's own"
        return Choice(keys="blocks", why=why, possible=("natural", "generated", "blocks"))
    if declared.upper() != "INTEGER":
        return Choice(keys="natural", why=f"{column} is no number that the database makes up ({declared or 'no type'})")
    if _counts(connection, name):
        why = f"{column} is AUTOINCREMENT, and takes its numbers from blocks of this replica's own"
        return Choice(keys="blocks", why=why, possible=("natural", "generated", "blocks"))
    why = f"{column} is numbered from the highest row; with AUTOINCREMENT it could take its numbers from blocks"
    return Choice(keys="generated", why=why, possible=("natural", "generated"))


def chosen(connection: Connection, table: Table) -> Choice:
    """The same, of a table that was read before."""
    types = {column.name: column.type for column in table.columns}
    return choose(connection, table.name, [(column, types[column]) for column in table.key], table.references)


def overruled(connection: Connection, table: Table, said: KeyKind) -> Table:
    """The table with keys as the settings say. Raises TableUnfit when they cannot be so."""
    choice = chosen(connection, table)
    if said in choice.possible:
        return msgspec.structs.replace(table, keys=said)
    error = TableUnfit(
        f'table {table.name!r} cannot have keys = "{said}": {choice.why}',
        hint=f"it can have: {', '.join(choice.possible)}",
    )
    error.where = ("tables", table.name, "keys")
    raise error


def why(connection: Connection, table: Table) -> str:
    """Why the table's keys are taken to be what they are."""
    choice = chosen(connection, table)
    return choice.why if choice.keys == table.keys else f"said in the settings ({choice.keys} without that)"


def stands_at(connection: Connection, table: Table) -> int:
    """The number after which the next row's comes, or (SQLite) a higher one that a row has."""
    if on_postgresql(connection):
        last = "SELECT coalesce(pg_sequence_last_value(CAST(? AS regclass)), 0)"
        return int(run(connection, last, (_sequence(connection, table.name, table.key[0]),)).scalar_one())
    statement = f"""
        SELECT max(coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = ?), 0),
                   coalesce((SELECT max({quoted(table.key[0])}) FROM {quoted(table.name)}), 0))
    """  # noqa: S608 - the catalogue's own names, quoted
    return int(connection.exec_driver_sql(statement, (table.name,)).scalar_one())


def highest(connection: Connection, table: Table) -> int:
    """The highest number that a row has."""
    statement = f"SELECT max({quoted(table.key[0])}) FROM {quoted(table.name)}"  # noqa: S608 - the same
    return max(0, int(connection.exec_driver_sql(statement).scalar_one() or 0))


def follows_rows(connection: Connection) -> bool:
    """Whether a row that comes in with a higher number moves what is numbered next."""
    return not on_postgresql(connection)


def pass_by_rows(connection: Connection, table: Table, last: int) -> None:
    """A sequence does not look at the rows: those that somebody has numbered himself, further on up to `last`, would be
    in the app's way."""
    if on_postgresql(connection):
        at = stands_at(connection, table)
        column = quoted(table.key[0])
        statement = f"SELECT max({column}) FROM {quoted(table.name)} WHERE {column} > ? AND {column} <= ?"  # noqa: S608 - the catalogue's own names, quoted
        taken = run(connection, statement, (at, last)).scalar_one()
        if taken is not None:
            go_on_after(connection, table, int(taken))


def go_on_after(connection: Connection, table: Table, number: int) -> None:
    """The next row gets the number after this one; never one before where the table stands."""
    if on_postgresql(connection):
        raised = "SELECT setval(CAST(? AS regclass), ?) WHERE ? > ?"
        sequence = _sequence(connection, table.name, table.key[0])
        run(connection, raised, (sequence, number, number, stands_at(connection, table)))
        return
    values = {"name": table.name, "number": number}
    counted = text("UPDATE sqlite_sequence SET seq = max(seq, :number) WHERE name = :name")
    if not connection.execute(counted, values).rowcount:
        connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :number)"), values)


def _sequence(connection: Connection, name: str, column: str) -> str | None:
    """PostgreSQL: the sequence that the column draws from."""
    found: str | None = run(connection, "SELECT pg_get_serial_sequence(?, ?)", (quoted(name), column)).scalar_one()
    return found


def take(connection: Connection, table: Table, count: int, *, after: int) -> list[int]:
    """The next numbers, as rows would get them. after: where the table stands."""
    if on_postgresql(connection):  # where the app may draw from the sequence meanwhile
        drawn = "SELECT nextval(CAST(? AS regclass)) FROM generate_series(1, ?)"
        return sorted(
            row[0] for row in run(connection, drawn, (_sequence(connection, table.name, table.key[0]), count))
        )
    go_on_after(connection, table, after + count)
    return list(range(after + 1, after + count + 1))


def _counts(connection: Connection, name: str) -> bool:
    statement = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :name"
    sql = connection.execute(text(statement), {"name": name}).scalar_one()
    return re.search(r"\bAUTOINCREMENT\b", ASIDE.sub(" ", sql), re.IGNORECASE) is not None
