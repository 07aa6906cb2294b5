"""Statements for both databases: what SQLite and PostgreSQL spell differently, in one place.

A statement here has its places as `?`. PostgreSQL's driver wants `%s`, and every other `%` doubled; what stands inside
quotes is left as it is but for that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, CursorResult, Table, TextClause
from sqlalchemy.dialects import postgresql, sqlite

QUOTED_OR_PLACE = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\?|%""")


@lru_cache(maxsize=1024)
def text(statement: str) -> TextClause:
    """SQLAlchemy's own, kept: one that is made anew is parsed and keyed anew with each execution, and that costs more
    than SQLite does."""
    return sqlalchemy.text(statement)


def on_postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def run(
    connection: Connection, statement: str, values: Sequence[Any] = (), *, stream: bool = False
) -> CursorResult[Any]:
    """Execute, past SQLAlchemy's own parameters: names of the app's tables may hold colons and anything else.

    values: of the places `?`; or many rows of them, as a list, each executed. stream: the rows are fetched as they are
    read; close the result.
    """
    spelt = _percent_places(statement) if on_postgresql(connection) else statement
    given = values if isinstance(values, list) else tuple(values)
    return connection.exec_driver_sql(spelt, given, {"stream_results": stream})


def run_together(connection: Connection, statement: str, rows: Sequence[tuple[Any, ...]], *, together: str) -> None:
    """Execute for each row; on PostgreSQL, where each execution is a journey, `together` is given all rows at once, as
    one array for each column."""
    if rows and on_postgresql(connection):
        run(connection, together, tuple(list(column) for column in zip(*rows, strict=True)))
    elif rows:
        run(connection, statement, list(rows))


def how_many(connection: Connection, changed: CursorResult[Any]) -> int:
    """The rows that were changed by the statement that was just executed: `rowcount`, which Python's driver of SQLite
    does not know of a statement that begins with WITH."""
    if on_postgresql(connection):
        return changed.rowcount
    number: int = connection.exec_driver_sql("SELECT changes()").scalar_one()
    return number


@lru_cache(maxsize=256)
def _percent_places(statement: str) -> str:
    def spell(found: re.Match[str]) -> str:
        return "%s" if found[0] == "?" else found[0].replace("%", "%%")

    return QUOTED_OR_PLACE.sub(spell, statement)


def members(connection: Connection, name: str, kind: str = "text") -> str:
    """SQL for a column of what is in the JSON array of the parameter `:name`; to stand in `IN (...)`."""
    if on_postgresql(connection):
        return f"SELECT CAST(json_array_elements_text(CAST(:{name} AS json)) AS {kind})"
    return f"SELECT value FROM json_each(:{name})"  # noqa: S608 - the same


def as_bytes(connection: Connection, column: str) -> str:
    """SQL for a text as its bytes: an app can store text in SQLite that is no UTF-8."""
    if on_postgresql(connection):
        return f"convert_to({column}, 'UTF8')"
    return f"CAST({column} AS BLOB)"


def member(connection: Connection, document: str, name: int | str) -> str:
    """SQL for a member of a JSON document, by its number in an array or its name in an object; NULL if there is none.

    Values are to be compared with others of the same kind alone: on PostgreSQL all of them are text.
    """
    if on_postgresql(connection):
        path = str(name) if isinstance(name, int) else literal(name)
        return f"(CAST({document} AS json) ->> {path})"
    path = f"$[{name}]" if isinstance(name, int) else "$." + quoted(name)
    return f"json_extract({document}, {literal(path)})"


def member_as_json(connection: Connection, document: str, name: str) -> str:
    """SQL for the JSON of a member of an object, as bytes; NULL if there is none."""
    if on_postgresql(connection):
        return as_bytes(connection, f"CAST(CAST({document} AS json) -> {literal(name)} AS text)")
    return as_bytes(connection, f"({document} -> {literal('$.' + quoted(name))})")


def insert(connection: Connection, table: Table) -> sqlite.Insert:
    """An INSERT that may have an ON CONFLICT. (The two dialects' classes offer the same.)"""
    made: Any = postgresql.insert(table) if on_postgresql(connection) else sqlite.insert(table)
    return made  # type: ignore[no-any-return]


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """An SQL text. A backslash in it is one: PostgreSQL's standard_conforming_strings is on."""
    return "'" + value.replace("'", "''") + "'"
