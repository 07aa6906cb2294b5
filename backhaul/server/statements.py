"""Many rows at once, past SQLAlchemy's parameter handling: it costs more for each row than the database does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection


def write_rows(connection: Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Execute for each row. The statement's places are `?`, whatever the driver's are, and it holds no other."""
    if rows:
        spelt = statement if connection.dialect.paramstyle == "qmark" else statement.replace("?", "%s")
        connection.exec_driver_sql(spelt, list(rows))
