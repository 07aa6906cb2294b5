"""Ledger of backhaul_text: the Yjs documents of texts that were edited, by record and column.

A text that nobody has edited has no row: everybody makes the same document of it. A row is the document as it is here:
what the server has told, and what was frozen of our own since.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, bindparam, text

from backhaul.statements import members, run_together

Place = tuple[str, str, str]  # table, canonical key, column


def of_records(connection: Connection, table: str, keys: Sequence[str]) -> dict[str, dict[str, bytes]]:
    """The documents of these records, by key and column."""
    statement = text(f"""
        SELECT key, column_name, state FROM backhaul_text
        WHERE table_name = :table AND key IN ({members(connection, "keys")})
    """)  # noqa: S608 - a constant
    found: dict[str, dict[str, bytes]] = {}
    for row in connection.execute(statement, {"table": table, "keys": json.dumps(list(keys))}):
        found.setdefault(row.key, {})[row.column_name] = bytes(row.state)
    return found


def of_record(connection: Connection, table: str, key: str) -> dict[str, bytes]:
    return of_records(connection, table, [key]).get(key, {})


def keep(connection: Connection, states: Mapping[Place, bytes]) -> None:
    statement = """
        INSERT INTO backhaul_text (table_name, key, column_name, state) VALUES (?, ?, ?, ?)
        ON CONFLICT (table_name, key, column_name) DO UPDATE SET state = excluded.state
    """
    together = """
        INSERT INTO backhaul_text (table_name, key, column_name, state)
        SELECT * FROM unnest(?::text[], ?::text[], ?::text[], ?::bytea[])
        ON CONFLICT (table_name, key, column_name) DO UPDATE SET state = excluded.state
    """
    run_together(connection, statement, [(*place, state) for place, state in states.items()], together=together)


def rename(connection: Connection, table: str, names: Mapping[str, str]) -> None:
    """The columns have other names, and their texts are the same. names: old -> new."""
    taken = """
        DELETE FROM backhaul_text WHERE table_name = :table AND column_name = :new
          AND key IN (SELECT key FROM backhaul_text WHERE table_name = :table AND column_name = :old)
    """
    renamed = "UPDATE backhaul_text SET column_name = :new WHERE table_name = :table AND column_name = :old"
    for old, new in names.items():
        values = {"table": table, "old": old, "new": new}
        connection.execute(text(taken), values)
        connection.execute(text(renamed), values)


def retable(connection: Connection, old: str, new: str) -> None:
    """The table has another name."""
    statement = "UPDATE backhaul_text SET table_name = :new WHERE table_name = :old"
    connection.execute(text(statement), {"old": old, "new": new})


def forget(connection: Connection, table: str, keys: Sequence[str]) -> None:
    """The records are gone, or came anew."""
    statement = text("DELETE FROM backhaul_text WHERE table_name = :table AND key IN :keys")
    for at in range(0, len(keys), 500):
        values = {"table": table, "keys": list(keys[at : at + 500])}
        connection.execute(statement.bindparams(bindparam("keys", expanding=True)), values)


def forget_texts(connection: Connection, places: Iterable[Place]) -> None:
    """Nobody has edited these texts."""
    statement = "DELETE FROM backhaul_text WHERE table_name = :table AND key = :key AND column_name = :column"
    rows = [{"table": table, "key": key, "column": column} for table, key, column in places]
    if rows:
        connection.execute(text(statement), rows)
