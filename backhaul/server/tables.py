"""The tables that may be pushed in a scope: the allow-list, and the only file that writes `server_table`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection

from backhaul.errors import Misused
from backhaul.kinds import Kind, joined, kind_of, kinds_of
from backhaul.merge import Functions, Strategies, strategies_of
from backhaul.server import aggregates, names, records, renaming
from backhaul.server.names import Renaming
from backhaul.server.problems import refusal
from backhaul.statements import text
from backhaul.wire import STRATEGIES, Column, Deletes, KeyKind, Reference, Table, encode, newest_names, strategy_name

LONGEST_NAME = 255
NONE = Functions()
KEY_KINDS: tuple[KeyKind, ...] = ("natural", "generated", "blocks")  # the later one merges less by accident
STATEFUL = ("counter", "set", "text")  # they are told what was done, and not what came of it


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A table as ops are held against it."""

    columns: frozenset[str]
    kinds: dict[str, Kind]  # of the fields that are not compared as they are
    key: tuple[str, ...]
    generated: bool
    references: tuple[Reference, ...]
    merge: dict[str, str]
    deletes: Deletes
    aggregate: str
    renamed: dict[str, str]  # old column -> its newest name
    formerly: tuple[str, ...]
    strategies: Strategies


def shapes(connection: Connection, scope: str, functions: Functions = NONE) -> dict[str, Shape]:
    """functions: what `custom` columns may name."""
    return {name: _shape(definition, functions) for name, definition in _definitions(connection, scope)}


def key_kinds(connection: Connection, scope: str, name: str) -> list[Kind]:
    """What the parts of a table's key are; empty for a table that there is not."""
    found = next((_table(definition) for known, definition in _definitions(connection, scope) if known == name), None)
    types = {column.name: column.type for column in found.columns} if found is not None else {}
    return [kind_of(types[column]) for column in found.key] if found is not None else []


def newest_names_of(shapes: Mapping[str, Shape]) -> Renaming:
    """From every older name of the scope's tables and columns to the newest."""
    return Renaming(
        {old: name for name, shape in shapes.items() for old in shape.formerly},
        {name: shape.renamed for name, shape in shapes.items() if shape.renamed},
    )


class Agreed(NamedTuple):
    """tables: all of the scope. anew: whether columns whose changes were captured as values are merged from now on by
    what is done to them: every other replica must hear of that before it pulls again."""

    tables: list[Table]
    anew: bool


def declare(connection: Connection, scope: str, tables: Sequence[Table], functions: Functions = NONE) -> Agreed:
    """Add tables, columns and strategies to the scope; nothing is ever taken away. Returns what is agreed now. The
    caller holds the scope's row. functions: what `custom` columns may name.

    Raises Refused: `table-invalid`; `schema-conflict` when what is said cannot be joined with what is agreed.
    """
    for table in tables:
        _check(table, functions)
    known = {name: _table(definition) for name, definition in _definitions(connection, scope)}
    before = set(known)
    turned = False
    for table in renaming.under_newest(connection, scope, known, tables):
        turned |= _join(connection, scope, known, table)
    reason = aggregates.contradiction(known)
    if reason:
        raise refusal("table-invalid", reason)
    rows = [{"scope": scope, "name": name, "definition": encode(table).decode()} for name, table in known.items()]
    if rows:
        _keep(connection, rows)
    _forget(connection, scope, before - known.keys())
    return Agreed([known[name] for name in sorted(known)], turned)


def _join(connection: Connection, scope: str, known: dict[str, Table], said: Table) -> bool:
    """What is said of a table, joined with what is agreed; where it gives columns new names, all that is there gets
    them: this table, those that refer to it, and its records. Returns whether a column turns to a strategy that is told
    what was done."""
    old = known.get(said.name)
    renamed = _renamed(old, said)
    newest = newest_names(renamed)
    new = msgspec.structs.replace(names.table_under(said, newest), renamed=renamed)
    for name, table in known.items():
        new.references = names.referring(new.references, name, newest_names(table.renamed))
    if old is None:
        known[said.name] = new
        return False
    old_now = names.table_under(old, newest)
    known[said.name] = _union(old_now, new)
    if renamed != old.renamed:
        records.rename(connection, scope, said.name, newest)
        for table in known.values():
            table.references = names.referring(table.references, said.name, newest)
    return _turn(connection, scope, old_now, known[said.name])


def _turn(connection: Connection, scope: str, before: Table, now: Table) -> bool:
    """Whether there are columns that turn from last writes to a strategy that is told what was done. The value that a
    record has is what it begins with. Raises Refused `schema-conflict` for a value that cannot be that."""
    known = {column.name for column in before.columns}
    turning = {
        name for name, said in now.merge.items() if said in STATEFUL and name in known and name not in before.merge
    }
    if not turning:
        return False
    strategies = strategies_of(now, NONE)
    with closing(records.values(connection, scope, now.name)) as rows:
        for key, fields in rows:
            for name in sorted(turning & fields.keys()):
                wrong = strategies.columns[name].unusable("insert", fields[name])
                if wrong:
                    why = f"{now.name}.{name} cannot become a {now.merge[name]} here, for the value of {key}: {wrong}"
                    raise refusal("schema-conflict", why)
    return True


def _renamed(old: Table | None, said: Table) -> dict[str, str]:
    """Every renaming of the table so far: old column -> new. Raises Refused `schema-conflict`."""
    before = old.renamed if old is not None else {}
    renamed = said.renamed | before
    newest = newest_names(renamed)
    for column, name in said.renamed.items():
        if newest[column] != newest.get(name, name):
            raise refusal(
                "schema-conflict", f"{said.name}.{column} was renamed to {newest[column]} here, not to {name}"
            )
    return renamed


def _union(old: Table, new: Table) -> Table:
    if old.key != new.key:
        raise refusal("schema-conflict", f"the primary key of {new.name} is {old.key} here, not {new.key}")
    if old.aggregate and new.aggregate and old.aggregate != new.aggregate:
        raise refusal("schema-conflict", f"{new.name} is part of {old.aggregate} here, not of {new.aggregate}")
    return Table(
        name=old.name,
        columns=_columns(old, new),
        key=old.key,
        keys=max(old.keys, new.keys, key=KEY_KINDS.index),
        references=old.references + [reference for reference in new.references if reference not in old.references],
        merge=_agreed(old, new),
        deletes="edit_wins" if "edit_wins" in (old.deletes, new.deletes) else "delete_wins",  # what loses no edit
        aggregate=old.aggregate or new.aggregate,
        renamed=new.renamed,
        formerly=old.formerly + [name for name in new.formerly if name not in old.formerly],
    )


def _columns(old: Table, new: Table) -> list[Column]:
    """Those of both; a column that the two declare as of different kinds has both types."""
    said = {column.name: column.type for column in new.columns}
    known = {column.name for column in old.columns}
    both = [Column(name=one.name, type=joined(one.type, said.get(one.name, one.type))) for one in old.columns]
    return both + [column for column in new.columns if column.name not in known]


def _agreed(old: Table, new: Table) -> dict[str, str]:
    """The strategies of the columns. The first one said stands; who says none follows it."""
    agreed = dict(old.merge)
    for column, said in new.merge.items():
        standing = agreed.get(column, said)
        if standing == "lww":
            standing = said
        if standing != said:
            raise refusal("schema-conflict", f"{new.name}.{column} is merged as {standing} here, not as {said}")
        agreed[column] = said
    return agreed


def _check(table: Table, functions: Functions) -> None:
    columns = [column.name for column in table.columns]
    for name in (table.name, *table.formerly, *columns):
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise refusal("table-invalid", f"{name!r:.80} is no name of a table or a column")
    if len(set(columns)) != len(columns):
        raise refusal("table-invalid", f"{table.name} names a column twice")
    if not table.key or len(set(table.key)) != len(table.key) or not set(table.key) <= set(columns):
        raise refusal("table-invalid", f"the key of {table.name} is not made of its columns")
    for reference in table.references:
        told = bool(reference.columns) and len(reference.columns) == len(reference.target)
        if not told or not set(reference.columns) <= set(columns):
            raise refusal("table-invalid", f"a reference of {table.name} is not made of its columns")
    if table.aggregate and all(reference.table != table.aggregate for reference in table.references):
        raise refusal("table-invalid", f"{table.name} has no reference to {table.aggregate:.80}, its aggregate")
    if table.name in table.formerly:
        raise refusal("table-invalid", f"{table.name} cannot have been called so before")
    for column, name in table.renamed.items():
        if column in columns or name not in columns:
            raise refusal("table-invalid", f"{table.name} has no column {name!r:.80} that was {column!r:.80} before")
    for column, said in table.merge.items():
        _check_strategy(table, column, said, functions)


def _check_strategy(table: Table, column: str, said: str, functions: Functions) -> None:
    name = strategy_name(said)
    if column in table.key or all(column != one.name for one in table.columns):
        raise refusal("table-invalid", f"{table.name} has no field {column!r:.80} to merge")
    if name not in STRATEGIES or (name != "custom" and said != name):
        raise refusal("table-invalid", f"{table.name}.{column}: there is no strategy {said!r:.80}")
    if name == "custom":
        try:
            functions.find(said)
        except Misused as error:
            raise refusal("table-invalid", f"{table.name}.{column}: {error}; {error.hint}") from error


@lru_cache(maxsize=4096)
def _shape(definition: str, functions: Functions) -> Shape:
    table = _table(definition)
    return Shape(
        columns=frozenset(column.name for column in table.columns),
        key=tuple(table.key),
        generated=table.keys != "natural",
        references=tuple(table.references),
        merge=table.merge,
        deletes=table.deletes,
        aggregate=table.aggregate,
        renamed=newest_names(table.renamed),
        formerly=tuple(table.formerly),
        kinds=dict(kinds_of(table)),
        strategies=strategies_of(table, functions),
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


def _forget(connection: Connection, scope: str, names: Collection[str]) -> None:
    """They have other names by now."""
    statement = "DELETE FROM server_table WHERE scope = :scope AND name = :name"
    if names:
        connection.execute(text(statement), [{"scope": scope, "name": name} for name in sorted(names)])
