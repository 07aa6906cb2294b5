"""Rows of the app's tables by their keys, and the aggregates that records are of, as far as this database knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from backhaul.merge.aggregate import Aggregates, Place
from backhaul.replica.capture import row_expressions
from backhaul.replica.rows import is_the_key, key_values
from backhaul.statements import as_bytes, quoted, run
from backhaul.wire import Table, Value

AT_ONCE = 100  # keys in one statement

_decode = msgspec.json.Decoder(dict[str, Value]).decode
decode_key = msgspec.json.Decoder(list[Value]).decode


def fields_of(said: bytes | None) -> dict[str, Value]:
    """Fields as an app's trigger wrote them: it can store text that is no UTF-8."""
    return _decode(said.decode(errors="replace")) if said else {}


def value_of(said: bytes) -> Value:
    """A value as an app's trigger wrote it; the same."""
    value: Value = msgspec.json.decode(said.decode(errors="replace"), type=Value)
    return value


def rows(connection: Connection, table: Table, keys: Sequence[str]) -> dict[str, dict[str, Value]]:
    """The fields of those rows that are here, by key (JSON)."""
    json_key, json_fields = row_expressions(connection, table, "here")
    found: dict[str, dict[str, Value]] = {}
    for at in range(0, len(keys), AT_ONCE):
        some = keys[at : at + AT_ONCE]
        where = " OR ".join([f"({is_the_key(connection, table)})"] * len(some))
        statement = f"""
            SELECT {json_key}, {as_bytes(connection, f"({json_fields})")}
            FROM {quoted(table.name)} AS here WHERE {where}
        """  # noqa: S608 - the catalogue's own names, quoted
        values = [value for key in some for value in key_values(connection, table, decode_key(key))]
        made: Any = run(connection, statement, tuple(values))
        found |= {str(key): fields_of(bytes(fields)) for key, fields in made}
    return found


class Roots:
    """The aggregates of this database's tables."""

    def __init__(self, connection: Connection, tables: Iterable[Table]) -> None:
        self._connection = connection
        self._tables = {table.name: table for table in tables}
        self._aggregates = Aggregates(self._tables)
        self.tables = self._aggregates.tables

    def of(self, records: Sequence[tuple[str, str, dict[str, Value]]]) -> list[Place | None]:
        """The root of each record: by the fields that are said of it, or by its row here. records: table, key (JSON)
        and fields."""
        found = [self._root(table, key, fields) for table, key, fields in records]
        unknown: dict[str, list[str]] = {}
        for (table, key, _), root in zip(records, found, strict=True):
            if root is None and table in self.tables:
                unknown.setdefault(table, []).append(key)
        here = {name: rows(self._connection, self._tables[name], keys) for name, keys in unknown.items()}
        return [
            root or self._root(table, key, here.get(table, {}).get(key, {}) | fields)
            for (table, key, fields), root in zip(records, found, strict=True)
        ]

    def named_by(self, table: str) -> tuple[str, list[int | str]]:
        """See Aggregates."""
        return self._aggregates.named_by(table)

    def _root(self, table: str, key: str, fields: dict[str, Value]) -> Place | None:
        return self._aggregates.root(table, decode_key(key), fields) if table in self.tables else None
