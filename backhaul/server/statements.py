"""Many rows at once, past SQLAlchemy's parameter handling: it costs more for each row than the database does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection

from backhaul.statements import on_postgresql, run_together

MOST_TEXT = 32 * 2**20  # characters of one statement's rows, and one row more


def write_rows(connection: Connection, statement: str, kinds: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert them: once for each row, and on PostgreSQL all at once. `ROWS` in the statement is where they come from.

    kinds: of the columns, in PostgreSQL's words. No two rows may be about the same key.
    """
    names = kinds.split()
    places, arrays = ", ".join("?" * len(names)), ", ".join(f"?::{name}[]" for name in names)
    one, all_of_them = f"VALUES ({places})", f"SELECT * FROM unnest({arrays})"  # noqa: S608 - of places and types
    for some in _parts(rows) if on_postgresql(connection) else [rows]:
        run_together(connection, statement.replace("ROWS", one), some, together=statement.replace("ROWS", all_of_them))


def _parts(rows: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    """PostgreSQL takes no array of more than a gigabyte, and a push may touch many records that are large."""
    first = size = 0
    for number, row in enumerate(rows):
        size += sum(len(value) for value in row if isinstance(value, str))
        if size > MOST_TEXT:
            yield rows[first : number + 1]
            first, size = number + 1, 0
    yield rows[first:]
