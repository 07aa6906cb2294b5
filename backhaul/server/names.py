"""Names: what tables and columns were called before, and what each replica calls them.

A scope has one name for a table and for a column, the newest that any of its replicas has said (`formerly` and
`renamed` of a table). What comes under an older name is read under the newest; the records are rewritten once, when a
new name is said. A replica that has not renamed its table or its column yet goes on as before: it is told the name that
it has said itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import msgspec

from backhaul.wire import Block, Column, Op, Reference, Result, Table, encode

Value = TypeVar("Value")
Names = Mapping[str, str]  # a name -> another name of the same


class Renaming(NamedTuple):
    """Tables, and the columns of each, from one set of names to another: to the newest, or to those of one replica.

    columns: by the newest name of their table.
    """

    tables: Names
    columns: Mapping[str, Names]

    def table(self, name: str) -> str:
        return self.tables.get(name, name)

    def columns_of(self, table: str) -> Names:
        return self.columns.get(table, {})

    def changes_anything(self) -> bool:
        return bool(self.tables or any(self.columns.values()))


SAME = Renaming({}, {})


def under(fields: Mapping[str, Value], names: Names) -> dict[str, Value]:
    """The fields under these names. What is said under the new name already stands."""
    told = {names.get(name, name): value for name, value in fields.items() if name in names}
    return told | {name: value for name, value in fields.items() if name not in names}


def table_under(table: Table, names: Names) -> Table:
    """A table's description with these names for its columns; a column that is then there twice stands once."""
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


def tables_under(table: Table, names: Names) -> Table:
    """The same with these names for tables: its own, and those that it refers to."""
    return msgspec.structs.replace(
        table,
        name=names.get(table.name, table.name),
        references=[msgspec.structs.replace(one, table=names.get(one.table, one.table)) for one in table.references],
        aggregate=names.get(table.aggregate, table.aggregate),
    )


def referring(references: Iterable[Reference], table: str, names: Names) -> list[Reference]:
    """The references, where those to this table name its columns anew."""
    return [
        msgspec.structs.replace(one, target=[names.get(column, column) for column in one.target])
        if one.table == table
        else one
        for one in references
    ]


def read(ops: Sequence[Op], newest: Renaming) -> Sequence[Op]:
    """The ops under the newest names."""
    if not newest.changes_anything():
        return ops
    return [_read(op, newest) for op in ops]


def _read(op: Op, newest: Renaming) -> Op:
    table = newest.table(op.table)
    names = newest.columns_of(table)
    if names and not names.keys().isdisjoint(op.fields):
        return msgspec.structs.replace(op, table=table, fields=under(op.fields, names))
    return op if table == op.table else msgspec.structs.replace(op, table=table)


def speech(newest: Renaming, declared: str) -> Renaming:
    """What a replica calls what was renamed: newest -> its own. declared: what it has said, JSON: {table: [column]}."""
    if not newest.changes_anything():
        return SAME
    said = _said(declared)
    tables = {new: old for old, new in newest.tables.items() if old in said and new not in said}
    columns = {
        table: _spoken(names, said.get(tables.get(table, table), frozenset()))
        for table, names in newest.columns.items()
    }
    return Renaming(tables, {table: names for table, names in columns.items() if names})


def _spoken(names: Names, said: frozenset[str]) -> dict[str, str]:
    return {new: old for old, new in names.items() if old in said and new not in said}


@lru_cache(maxsize=1024)
def _said(declared: str) -> dict[str, frozenset[str]]:
    return msgspec.json.decode(declared, type=dict[str, frozenset[str]])


def declared(tables: Sequence[Table]) -> str:
    """What is kept of a declaration."""
    return encode({table.name: [column.name for column in table.columns] for table in tables}).decode()


def told_table(table: Table, spoken: Renaming) -> Table:
    """A table of the scope as the replica calls it; what it has not renamed yet was never renamed to it."""
    told, names, own = table, spoken.columns_of(table.name), spoken.table(table.name)
    for name, columns in spoken.columns.items():
        told = msgspec.structs.replace(told, references=referring(told.references, name, columns))
    if names:
        renamed = {old: new for old, new in table.renamed.items() if old not in names.values()}
        told = msgspec.structs.replace(table_under(told, names), renamed=renamed)
    if own != table.name:
        told = msgspec.structs.replace(told, formerly=table.formerly[: table.formerly.index(own)])
    return tables_under(told, spoken.tables) if spoken.tables else told


def told_record(record: Any, spoken: Renaming) -> None:
    """A record on its way out, changed in place: `fields` are Raw, or a dict of Raw."""
    names = spoken.columns_of(record.table)
    if names:
        fields = record.fields
        if isinstance(fields, msgspec.Raw):
            fields = msgspec.json.decode(fields, type=dict[str, msgspec.Raw])
        record.fields = under(fields, names)
    record.table = spoken.table(record.table)


def told_problems(ops: Iterable[Op], results: Mapping[int, Result], newest: Renaming, spoken: Renaming) -> None:
    """What stands there, in the answers to these ops, changed in place. An answer that is given again may be from
    before a renaming. results: by the ops' numbers."""
    for op in ops:
        problem = results[op.seq].problem if op.seq in results else None
        if problem is not None and problem.theirs:
            table = newest.table(op.table)
            theirs = under(problem.theirs, newest.columns_of(table))
            problem.theirs = under(theirs, spoken.columns_of(table))


def told_blocks(blocks: Iterable[Block], spoken: Renaming) -> list[Block]:
    return [msgspec.structs.replace(block, table=spoken.table(block.table)) for block in blocks]
