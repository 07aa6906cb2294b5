"""The tables that may be pushed in a scope: the allow-list, and the only file that writes `server_table`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Connection, text

from backhaul.server.problems import refusal
from backhaul.wire import KeyKind, Reference, Table, encode

LONGEST_NAME = 255
STRICTNESS: tuple[KeyKind, ...] = ("natural", "generated", "blocks")


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A table as ops are held against it."""

    columns: frozenset[str]
    key: tuple[str, ...]
    generated: bool
    references: tuple[Reference, ...]


def shapes(connection: Connection, scope: str) -> dict[str, Shape]:
    return {name: _shape(definition) for name, definition in _definitions(connection, scope)}


def declare(connection: Connection, scope: str, tables: Sequence[Table]) -> None:
    """Add tables and columns to the scope; nothing is ever taken away. The caller holds the scope's row.

    Raises Refused: `table-invalid`; `schema-conflict` when a table is known with another primary key.
    """
    for table in tables:
        _check(table)
    known = {name: _table(definition) for name, definition in _definitions(connection, scope)}
    for table in tables:
        known[table.name] = _union(known[table.name], table) if table.name in known else table
    rows = [{"scope": scope, "name": table.name, "definition": encode(known[table.name]).decode()} for table in tables]
    if rows:
        _keep(connection, rows)


def _union(old: Table, new: Table) -> Table:
    if old.key != new.key:
        raise refusal("schema-conflict", f"the primary key of {new.name} is {old.key} here, not {new.key}")
    names = {column.name for column in old.columns}
    return Table(
        name=old.name,
        columns=old.columns + [column for column in new.columns if column.name not in names],
        key=old.key,
        keys=max(old.keys, new.keys, key=STRICTNESS.index),  # the one that never merges by accident
        references=old.references + [reference for reference in new.references if reference not in old.references],
    )


def _check(table: Table) -> None:
    names = [column.name for column in table.columns]
    for name in (table.name, *names):
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise refusal("table-invalid", f"{name!r:.80} is no name of a table or a column")
    if len(set(names)) != len(names):
        raise refusal("table-invalid", f"{table.name} names a column twice")
    if not table.key or len(set(table.key)) != len(table.key) or not set(table.key) <= set(names):
        raise refusal("table-invalid", f"the key of {table.name} is not made of its columns")
    for reference in table.references:
        told = bool(reference.columns) and len(reference.columns) == len(reference.target)
        if not told or not set(reference.columns) <= set(names):
            raise refusal("table-invalid", f"a reference of {table.name} is not made of its columns")


@lru_cache(maxsize=4096)
def _shape(definition: str) -> Shape:
    table = _table(definition)
    return Shape(
        columns=frozenset(column.name for column in table.columns),
        key=tuple(table.key),
        generated=table.keys != "natural",
        references=tuple(table.references),
    )


def _table(definition: str) -> Table:
    return msgspec.json.decode(definition, type=Table)


def _definitions(connection: Connection, scope: str) -> list[tuple[str, str]]:
    statement = "SELECT name, definition FROM server_table WHERE scope = :scope ORDER BY name"
    return [(row.name, row.definition) for row in connection.execute(text(statement), {"scope": scope})]


def _keep(connection: Connection, rows: list[dict[str, Any]]) -> None:
    statement = """
        INSERT INTO server_table (scope, name, definition)
        VALUES (:scope, :name, :definition)
        ON CONFLICT (scope, name) DO UPDATE SET definition = excluded.definition
    """
    connection.execute(text(statement), rows)
