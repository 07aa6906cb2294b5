"""Names: what columns were called before, and what each replica calls them.

A scope has one name for a column, the newest that any of its replicas has said (`renamed` of a table). What comes under
an older name is read under the newest; the records are rewritten once, when a new name is said. A replica that has
not renamed its column yet goes on as before: it is told the name that it has said itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from backhaul.wire import Column, Op, Reference, Result, Table, encode

Value = TypeVar("Value")
Names = Mapping[str, str]  # a column's name -> another name of it
Speech = Mapping[str, Names]  # of one replica: table -> the newest name -> the name that it says


def under(fields: Mapping[str, Value], names: Names) -> dict[str, Value]:
    """The fields under these names. What is said under the new name already stands."""
    told = {names.get(name, name): value for name, value in fields.items() if name in names}
    return told | {name: value for name, value in fields.items() if name not in names}


def table_under(table: Table, names: Names) -> Table:
    """The same for a table's description; a column that is then there twice stands once."""
    columns = {names.get(one.name, one.name): Column(names.get(one.name, one.name), one.type) for one in table.columns}
    return msgspec.structs.replace(
        table,
        columns=list(columns.values()),
        key=[names.get(column, column) for column in table.key],
        references=[
            msgspec.structs.replace(one, columns=[names.get(column, column) for column in one.columns])
            for one in table.references
        ],
        merge=under(table.merge, names),
    )


def referring(references: Iterable[Reference], table: str, names: Names) -> list[Reference]:
    """The references, where those to this table name its columns anew."""
    return [
        msgspec.structs.replace(one, target=[names.get(column, column) for column in one.target])
        if one.table == table
        else one
        for one in references
    ]


def read(ops: Sequence[Op], renamed: Speech) -> Sequence[Op]:
    """The ops under the newest names. renamed: table -> old name -> the newest."""
    if not any(renamed.get(op.table) for op in ops):
        return ops
    return [
        msgspec.structs.replace(op, fields=under(op.fields, names))
        if (names := renamed.get(op.table)) and not names.keys().isdisjoint(op.fields)
        else op
        for op in ops
    ]


def speech(tables: Mapping[str, Names], declared: str) -> Speech:
    """What a replica calls the columns that were renamed. tables: old name -> newest, for each table that has some.
    declared: the columns that it has said, JSON: {table: [name]}."""
    if not any(tables.values()):
        return {}
    said = _said(declared)
    spoken = {table: _spoken(names, said.get(table, frozenset())) for table, names in tables.items()}
    return {table: names for table, names in spoken.items() if names}


def _spoken(names: Names, said: frozenset[str]) -> dict[str, str]:
    return {new: old for old, new in names.items() if old in said and new not in said}


@lru_cache(maxsize=1024)
def _said(declared: str) -> dict[str, frozenset[str]]:
    return msgspec.json.decode(declared, type=dict[str, frozenset[str]])


def declared(tables: Sequence[Table]) -> str:
    """What is kept of a declaration."""
    return encode({table.name: [column.name for column in table.columns] for table in tables}).decode()


def told_table(table: Table, spoken: Speech) -> Table:
    """A table of the scope as the replica calls its columns; what it has not renamed yet was never renamed to it."""
    names = spoken.get(table.name)
    if not names:
        return table
    renamed = {old: new for old, new in table.renamed.items() if old not in names.values()}
    return msgspec.structs.replace(table_under(table, names), renamed=renamed)


def told_record(record: Any, spoken: Speech) -> None:
    """A record on its way out, changed in place: `fields` are Raw, or a dict of Raw."""
    names = spoken.get(record.table)
    if names:
        fields = record.fields
        if isinstance(fields, msgspec.Raw):
            fields = msgspec.json.decode(fields, type=dict[str, msgspec.Raw])
        record.fields = under(fields, names)


def told_problems(ops: Iterable[Op], results: Mapping[int, Result], spoken: Speech) -> None:
    """What stands there, in the answers to these ops, changed in place. results: by the ops' numbers."""
    for op in ops:
        problem = results[op.seq].problem if op.seq in results else None
        if problem is not None and problem.theirs and op.table in spoken:
            problem.theirs = under(problem.theirs, spoken[op.table])
