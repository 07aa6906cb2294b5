"""Many rows at once, past SQLAlchemy's parameter handling: it costs more for each row than the database does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from backhaul.statements import run_together


def write_rows(connection: Connection, statement: str, kinds: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert them: once for each row, and on PostgreSQL all at once. `ROWS` in the statement is where they come from.

    kinds: of the columns, in PostgreSQL's words. No two rows may be about the same key.
    """
    names = kinds.split()
    places, arrays = ", ".join("?" * len(names)), ", ".join(f"?::{name}[]" for name in names)
    one, all_of_them = f"VALUES ({places})", f"SELECT * FROM unnest({arrays})"  # noqa: S608 - of places and types
    run_together(connection, statement.replace("ROWS", one), rows, together=statement.replace("ROWS", all_of_them))
