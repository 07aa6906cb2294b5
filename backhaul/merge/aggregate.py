"""Aggregates: records that are right only together, like an invoice and its lines. One implementation for both ends.

A table whose `aggregate` names another table holds parts of that table's records: a part belongs to the record (the
root) that its foreign key names. Whatever of an aggregate changes, all of it counts as changed. Pure; no SQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import UNSET

from backhaul.wire import Reference, Tagged, canonical_key

Place = tuple[str, str]  # table, canonical key


class Described(Protocol):
    """A table, as far as it matters here."""

    @property
    def key(self) -> Sequence[str]: ...
    @property
    def references(self) -> Sequence[Reference]: ...
    @property
    def aggregate(self) -> str: ...


class Aggregates:
    """Which tables are of aggregates, and which record is whose root."""

    def __init__(self, tables: Mapping[str, Described]) -> None:
        self._keys = {name: tuple(table.key) for name, table in tables.items()}
        self._references = {
            name: found
            for name, table in tables.items()
            if table.aggregate in tables and (found := _reference(table, tables[table.aggregate])) is not None
        }
        self._roots = {reference.table for reference in self._references.values()}
        self.tables = frozenset(self._references) | self._roots

    def root(self, table: str, key: Sequence[Any], fields: Mapping[str, Any]) -> Place | None:
        """The root of the record with this key and these fields; None when they do not say it, or name none."""
        reference = self._references.get(table)
        if reference is None:
            return (table, canonical_key(list(key))) if table in self._roots else None
        known = dict(zip(self._keys[table], key, strict=False))
        named = {
            target: known.get(column, _now(fields.get(column)))
            for column, target in zip(reference.columns, reference.target, strict=True)
        }
        values = [named[column] for column in self._keys[reference.table]]
        return None if any(value is None for value in values) else (reference.table, canonical_key(values))

    def named_by(self, table: str) -> tuple[str, list[int | str]]:
        """The table of this one's roots, and what of a record says each part of the root's key: a number is a part of
        the record's own key, a name one of its fields."""
        reference = self._references.get(table)
        if reference is None:
            return table, list(range(len(self._keys[table])))
        columns = dict(zip(reference.target, reference.columns, strict=True))
        key = self._keys[table]
        said = [columns[target] for target in self._keys[reference.table]]
        return reference.table, [key.index(column) if column in key else column for column in said]

    def columns(self, table: str) -> list[str]:
        """The fields of a part that name its root, beside its key."""
        reference = self._references.get(table)
        return [] if reference is None else [name for name in reference.columns if name not in self._keys[table]]


def _reference(part: Described, root: Described) -> Reference | None:
    """The foreign key by which the part names its root: all of the root's key."""
    for reference in part.references:
        if reference.table == part.aggregate and set(reference.target) == set(root.key):
            return reference
    return None


def _now(value: Any) -> Any:
    """The value after a change that tells what was there before, too."""
    if type(value) is Tagged and value.now is not UNSET:
        return value.now
    if isinstance(value, dict) and "now" in value:
        return value["now"]
    return value
