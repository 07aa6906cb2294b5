"""Merge strategies as a replica has them: said in backhaul.toml, held against its columns, agreed with the server.

What cannot work is refused before anything is made: adding up floats gives another sum in another order, a set is text
that holds a JSON array, a key is never merged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from backhaul.errors import TableUnfit, TableUnknown
from backhaul.replica import media_columns
from backhaul.replica.media_columns import MediaColumn
from backhaul.wire import STRATEGIES, Column, Deletes, KeyKind, Table, newest_names, strategy_name

EVERY = "*"  # in place of a column: the strategy of those that are not named
CHOICE = ", ".join(sorted(STRATEGIES - {"custom"})) + " or custom:MODULE:FUNCTION"
INTEGERS = ("INT", "SERIAL")
DECIMALS = ("NUMERIC", "DECIMAL")
TEXTS = ("CHAR", "CLOB", "TEXT", "STRING")


Triggers = Literal["fire", "mute"]  # what the app's own do where records of others arrive


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the settings say of one table. merge: column (or `*`) -> strategy. renamed: old column -> new. formerly: the
    names that it had before. media: of the files that its rows name. Empty: not said."""

    merge: Mapping[str, str] = field(default_factory=dict)
    deletes: Deletes | None = None
    aggregate: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    formerly: Sequence[str] = ()
    keys: KeyKind | None = None
    triggers: Triggers | None = None
    media: MediaColumn | None = None

    def decides(self, columns: Sequence[str]) -> bool:
        """Whether nothing is left open about how these are merged: each has a strategy, or no column has one."""
        return not self.merge or EVERY in self.merge or self.merge.keys() >= set(columns)


def ruled(tables: Sequence[Table], rules: Mapping[str, Rules], dialect: str, present: Sequence[str]) -> list[Table]:
    """The tables with what the settings say of them. present: the names of all tables that are in the database.

    Raises TableUnknown and TableUnfit, with `where`: the setting that cannot be.
    """
    for name in rules:
        if name not in present:
            raise _at(TableUnknown(f"there is no table {name!r}", hint=f"the tables are: {', '.join(present)}"), name)
    for name, said in rules.items():
        _check_names(name, said.formerly, present)
    return [_ruled(table, rules[table.name], dialect) if table.name in rules else table for table in tables]


def agreed(tables: Sequence[Table], told: Sequence[Table], dialect: str) -> list[Table]:
    """The tables of this database, as they are agreed in the scope. Raises TableUnfit when that cannot be here."""
    of_scope = {table.name: table for table in told}
    return [_agreed(table, of_scope.get(table.name, table), dialect) for table in tables]


def _ruled(table: Table, rules: Rules, dialect: str) -> Table:
    fields = [column for column in table.columns if column.name not in table.key]
    for name in rules.merge.keys() - {EVERY}:
        if name in table.key:
            why = f"{table.name}.{name} is part of the primary key, and a key never changes"
            raise _at(TableUnfit(why, hint=f"take {name} out of merge"), table.name, "merge", name)
        if all(name != column.name for column in fields):
            why, hint = f"{table.name} has no column {name!r}", f"its columns are: {', '.join(c.name for c in fields)}"
            raise _at(TableUnfit(why, hint=hint), table.name, "merge", name)
    merge = {column.name: rules.merge.get(column.name, rules.merge.get(EVERY, "lww")) for column in fields}
    for column in fields:
        _hold(table, column, merge[column.name], dialect)
    if rules.aggregate and all(reference.table != rules.aggregate for reference in table.references):
        why = f"{table.name} has no foreign key to {rules.aggregate!r}, of which it is to be a part"
        hint = f"add one: FOREIGN KEY (...) REFERENCES {rules.aggregate}; or take aggregate out"
        raise _at(TableUnfit(why, hint=hint), table.name, "aggregate")
    ruled = msgspec.structs.replace(
        table,
        merge={name: said for name, said in merge.items() if said != "lww"},
        deletes=rules.deletes or table.deletes,
        aggregate=rules.aggregate,
        renamed=_renamed(table, rules.renamed),
        formerly=list(rules.formerly),
    )
    if rules.media is not None:
        media_columns.check(ruled, rules.media)
    return ruled


def _check_names(name: str, formerly: Sequence[str], present: Sequence[str]) -> None:
    """Raises TableUnfit for a table that is said to be another one now, and is there."""
    for old in formerly:
        if old in present:
            why = f"there is a table {old!r}, which is said to have the name {name!r} now"
            hint = 'formerly = "OLD" names a table as it was; take it out, or rename the table'
            raise _at(TableUnfit(why, hint=hint), name, "formerly")


def _renamed(table: Table, renamed: Mapping[str, str]) -> dict[str, str]:
    """Raises TableUnfit for a renaming that the table does not show."""
    columns = {column.name for column in table.columns}
    newest = newest_names(renamed)
    for old in renamed:
        if old in columns or newest[old] not in columns:
            why = f"{table.name} has no column {newest[old]!r} that was {old!r} before"
            if old in columns:
                why = f"{table.name} has a column {old!r}, which is said to have another name now"
            hint = 'renamed = {OLD = "NEW"} names a column as it was and as it is now'
            raise _at(TableUnfit(why, hint=hint), table.name, "renamed", old)
    return {old: newest[old] for old in renamed}


def _agreed(table: Table, told: Table, dialect: str) -> Table:
    names = {column.name: column for column in table.columns}
    merge = {name: said for name, said in told.merge.items() if name in names and name not in table.key}
    for name, said in merge.items():
        try:
            _hold(table, names[name], said, dialect)
        except TableUnfit as error:
            why = f"the scope has agreed on {said} for {table.name}.{name}, and that cannot be here: {error}"
            raise TableUnfit(why, hint=error.hint) from error
    return msgspec.structs.replace(
        table, merge=merge, deletes=told.deletes, aggregate=told.aggregate, renamed=told.renamed, formerly=told.formerly
    )


def _hold(table: Table, column: Column, said: str, dialect: str) -> None:
    """Raises TableUnfit when the strategy cannot be the column's."""
    name = strategy_name(said)
    place = f"{table.name}.{column.name}"
    if name not in STRATEGIES or (name == "custom") != (":" in said):
        why, hint = f"{place}: there is no strategy {said!r}", f"the strategies are {CHOICE}"
    elif (name == "custom" and not all(said.split(":", 2)[1:])) or said.count(":") not in (0, 2):
        why, hint = (
            f"{place}: {said!r} names no function",
            "write custom:MODULE:FUNCTION, for example custom:shop.merges:longer",
        )
    elif name == "counter" and not _counts(column, dialect):
        why = f"{place} cannot be a counter: its type is {column.type or 'not said'}"
        hint = _what_counts(dialect)
    elif name == "set" and not _is_of(column, (*TEXTS, "JSON")):
        why, hint = (
            f"{place} cannot be a set: its type is {column.type or 'not said'}",
            "a set is a JSON array in a TEXT column",
        )
    elif name == "text" and not _is_of(column, TEXTS):
        why, hint = f"{place} cannot be merged as text: its type is {column.type or 'not said'}", "use a TEXT column"
    else:
        return
    raise _at(TableUnfit(why, hint=hint), table.name, "merge", column.name)


def _counts(column: Column, dialect: str) -> bool:
    return _is_of(column, INTEGERS) or (dialect == "postgresql" and _is_of(column, DECIMALS))


def _what_counts(dialect: str) -> str:
    floats = "floats do not add up to the same sum in every order"
    if dialect == "postgresql":
        return f"a counter is an integer or a numeric column: {floats}"
    return f"a counter is an INTEGER column here: {floats}, and SQLite keeps NUMERIC as floats; count in cents"


def _is_of(column: Column, kinds: Sequence[str]) -> bool:
    return any(kind in column.type.upper() for kind in kinds)


def _at(error: TableUnfit | TableUnknown, *where: str) -> TableUnfit | TableUnknown:
    error.where = ("tables", *where)
    return error
