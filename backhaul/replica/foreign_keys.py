"""The foreign keys between synced tables, while records of others are written.

SQLite leaves them to the connection, and ours do not enforce them. PostgreSQL does, and more:

- It takes along what refers to a deleted row (CASCADE), or changes it (SET NULL, SET DEFAULT). Where the server has
  deleted that, too, it comes in the same transaction, and nothing more happens. What the server has not deleted may be
  the only copy of what the app has written: then the delete is refused, and set aside.
- It checks row by row what may only be right in the end, in tables that refer to each other in a circle. What is
  DEFERRABLE is deferred; else a row is put in without what it refers to, where that may be NULL, and gets it then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from backhaul.replica import rows_postgresql
from backhaul.replica.capture import row_expressions
from backhaul.replica.misfit import Misfit
from backhaul.replica.rows import Row, TablePlan
from backhaul.statements import on_postgresql, quoted, run
from backhaul.wire import Table, canonical_key, from_plain

ACTIONS = {"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}

_READ = """
    WITH synced AS (SELECT name, to_regclass(quote_ident(name)) AS oid FROM unnest(CAST(:names AS text[])) AS name)
    SELECT child.name AS child, parent.name AS parent, CAST(confdeltype AS text) AS action, condeferrable AS deferrable,
           (SELECT array_agg(CAST(attname AS text) ORDER BY place)
            FROM unnest(conkey) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute ON attrelid = conrelid AND attnum = number) AS columns,
           (SELECT array_agg(CAST(attname AS text) ORDER BY place)
            FROM unnest(confkey) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute ON attrelid = confrelid AND attnum = number) AS target,
           (SELECT coalesce(array_agg(CAST(attname AS text)), CAST('{}' AS text[])) FROM pg_attribute
            WHERE attrelid = conrelid AND attnum = ANY (conkey) AND NOT attnotnull) AS optional
    FROM pg_constraint JOIN synced AS child ON child.oid = conrelid JOIN synced AS parent ON parent.oid = confrelid
    WHERE contype = 'f' AND conparentid = 0 ORDER BY conname
"""


class ForeignKey(NamedTuple):
    """`columns` of `child` name the row of `parent` whose `target` is equal. optional: those that may be NULL. action:
    CASCADE, SET NULL, SET DEFAULT, or "" when a row that is referred to cannot be deleted."""

    child: str
    parent: str
    columns: list[str]
    target: list[str]
    optional: list[str]
    action: str
    deferrable: bool


def between(connection: Connection, names: Sequence[str]) -> list[ForeignKey]:
    """Those between these tables that this connection's writes must obey."""
    if not on_postgresql(connection):
        return []
    found = connection.execute(text(_READ), {"names": list(names)}).mappings()
    return [ForeignKey(**{**row, "action": ACTIONS.get(row["action"], "")}) for row in found]


@contextmanager
def checked_in_the_end(connection: Connection) -> Iterator[None]:
    """What is DEFERRABLE is checked when this is left, and no later: whoever wrote hears of it."""
    if not on_postgresql(connection):
        yield
        return
    connection.execute(text("SET CONSTRAINTS ALL DEFERRED"))
    yield
    connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))


# ------------------------------------------------------------------------------------------------ deletes


def refuse_to_take_along(connection: Connection, plans: Sequence[TablePlan], tables: Sequence[Table]) -> None:
    """Raises Misfit when a delete of these plans would change a row that they do not write. tables: all that are
    synced. One statement for each foreign key that takes along."""
    deleted = {plan.table.name: plan for plan in plans if plan.deleted}
    if not deleted or not on_postgresql(connection):
        return
    known, planned = {table.name: table for table in tables}, {plan.table.name: plan for plan in plans}
    taking = [key for key in between(connection, list(known)) if key.action and key.parent in deleted]
    for name in sorted({key.parent for key in taking}):  # the app may be about to add what refers to them
        rows_postgresql.hold(connection, known[name], deleted[name].deleted, alone=True)
    for key in taking:
        written = _written(planned.get(key.child), key)
        for row, gone in _referring(connection, known[key.child], deleted[key.parent], key):
            if row not in written:
                said = f"{key.parent} {gone} is deleted there, and {key.child} {row}, which refers to it, is not"
                raise Misfit(f"{said}: here it would be changed with it (ON DELETE {key.action})")


def _written(plan: TablePlan | None, key: ForeignKey) -> set[str]:
    """The rows (JSON of their keys) that the foreign key changes in vain: they are deleted, too, or, where it would
    set what they refer to, are about to say that themselves."""
    if plan is None:
        return set()
    width, written = len(plan.table.key), list(plan.deleted)
    if key.action != "CASCADE" and set(key.columns) <= set(plan.others):
        for names, rows in plan.whole.items():
            written += [row[:width] for row in rows if set(key.columns) <= set(names)]
        flags = [2 * plan.others.index(name) for name in key.columns]
        written += [row[2 * len(plan.others) :] for row in plan.changed if all(row[flag] for flag in flags)]
    return {canonical_key([from_plain(part) for part in row]) for row in written}


def _referring(connection: Connection, child: Table, parent: TablePlan, key: ForeignKey) -> Iterator[tuple[str, str]]:
    """The rows that refer to a deleted one, and that one, by their keys (JSON)."""
    row, _ = row_expressions(connection, child, "referring")
    gone, _ = row_expressions(connection, parent.table, "kept")
    pairs = zip(key.columns, key.target, strict=True)
    statement = f"""
        SELECT {row}, {gone}
        FROM {rows_postgresql.given(len(parent.table.key))}
        JOIN {quoted(key.parent)} AS kept ON {rows_postgresql.same_key(parent.table, 0)}
        JOIN {quoted(key.child)} AS referring
          ON {" AND ".join(f"referring.{quoted(column)} = kept.{quoted(target)}" for column, target in pairs)}
    """  # noqa: S608 - the catalogue's own names, quoted
    values = rows_postgresql.arrays(parent.table, parent.table.key, parent.deleted)
    with run(connection, statement, values, stream=True) as found:
        of_both: Any = found
        for one, other in of_both:
            yield str(one), str(other)


# ------------------------------------------------------------------------------------------------ circles


def steps(connection: Connection, plans: Sequence[TablePlan], tables: Sequence[Table]) -> list[list[TablePlan]]:
    """The plans, in as many steps as foreign keys that form a circle ask for: first without those that may be NULL."""
    keys = between(connection, [table.name for table in tables]) if any(plan.whole for plan in plans) else []
    left_out: dict[str, set[str]] = {}
    for key in keys:
        if key.child in _reached(keys, key.parent):
            left_out.setdefault(key.child, set()).update(key.optional)
    later = [plan for plan in plans if left_out.get(plan.table.name)]
    if not later:
        return [list(plans)]
    first = {plan.table.name: plan for plan in plans} | {
        plan.table.name: TablePlan(
            table=plan.table, deleted=plan.deleted, whole=_without(plan, left_out[plan.table.name])
        )
        for plan in later
    }
    strict = [key for key in keys if not left_out.get(key.child, set()) & set(key.columns)]
    above = {name: len(_reached(strict, name)) for name in first}  # whoever refers to another one reaches more
    return [sorted(first.values(), key=lambda plan: above[plan.table.name]), later]


def _without(plan: TablePlan, optional: set[str]) -> dict[tuple[str, ...], list[Row]]:
    width, made = len(plan.table.key), dict[tuple[str, ...], list[Row]]()
    for names, rows in plan.whole.items():
        kept = [number for number, name in enumerate(names) if name not in optional]
        some = made.setdefault(tuple(names[number] for number in kept), [])
        some += [(*row[:width], *(row[width + number] for number in kept)) for row in rows]
    return made


def in_the_way(connection: Connection, tables: Sequence[Table]) -> dict[str, str]:
    """What to do about a circle that cannot be entered: for each table of it."""
    keys = between(connection, [table.name for table in tables])
    strict = [key for key in keys if not key.deferrable and not key.optional]
    return {
        key.child: f"{key.child} and {key.parent} refer to each other in a circle: make a foreign key of it DEFERRABLE"
        for key in strict
        if key.child in _reached(strict, key.parent)
    }


def _reached(keys: Sequence[ForeignKey], name: str) -> set[str]:
    """The tables that this one refers to, at first or second hand, and itself."""
    parents: Mapping[str, set[str]] = {
        key.child: {one.parent for one in keys if one.child == key.child} for key in keys
    }
    reached, waiting = {name}, [name]
    while waiting:
        more = parents.get(waiting.pop(), set()) - reached
        reached |= more
        waiting += more
    return reached
