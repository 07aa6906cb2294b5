"""A table as the scope's replicas and the server agree on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

KeyKind = Literal["generated", "natural", "blocks"]
Deletes = Literal["delete_wins", "edit_wins"]
STRATEGIES = frozenset({"lww", "counter", "set", "text", "max", "min", "server_wins", "immutable", "custom", "manual"})
DELTAS = frozenset({"counter", "set", "text", "custom", "manual"})  # an update of theirs is captured as was and now


class Column(Struct, forbid_unknown_fields=True):
    name: str
    type: str = ""


class Reference(Struct, forbid_unknown_fields=True):
    """A foreign key: `columns` of this table name the record of `table` whose `target` columns are equal."""

    columns: list[str]
    table: str
    target: list[str]


class Table(Struct, forbid_unknown_fields=True):
    """A table as the server must know it. key: the primary key's columns, in order.

    merge: the strategies of the columns that are not `lww`; a custom one is `custom:module:function`. deletes: what
    becomes of an edit that meets a delete. aggregate: the table that this one's records are parts of, by a reference.
    renamed: old column -> new. formerly: the names that the table had before, the oldest first.
    """

    name: str
    columns: list[Column]
    key: list[str]
    keys: KeyKind = "natural"
    references: list[Reference] = []
    merge: dict[str, str] = {}
    deletes: Deletes = "delete_wins"
    aggregate: str = ""
    renamed: dict[str, str] = {}
    formerly: list[str] = []

    def strategy(self, column: str) -> str:
        """The name of the column's strategy."""
        return strategy_name(self.merge.get(column, "lww"))

    def deltas(self) -> dict[str, str]:
        """The columns whose updates travel as what was done, not as what came of it: column -> strategy's name."""
        found = {column: strategy_name(said) for column, said in self.merge.items()}
        return {column: name for column, name in found.items() if name in DELTAS}


def strategy_name(said: str) -> str:
    """`custom` of `custom:module:function`; the others are their names."""
    return said.partition(":")[0]


def newest_names(renamed: Mapping[str, str]) -> dict[str, str]:
    """For each old name of a column, the newest one: a column may have been renamed several times."""
    found = {}
    for old in renamed:
        name, seen = old, {old}
        while name in renamed and renamed[name] not in seen:
            name = renamed[name]
            seen.add(name)
        found[old] = name
    return found
