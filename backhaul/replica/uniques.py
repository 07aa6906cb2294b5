"""The columns of a table whose values must differ from row to row, and how they are set out of the way for a moment.

Neither database lets two rows swap a UNIQUE value in one statement after the other: the first one would meet the
second. So within one transaction, and only where a page was refused before, such values become NULL, or a value that
nobody has, before the true ones are written.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import Connection, text

from backhaul.replica import rows
from backhaul.replica.rows import TablePlan
from backhaul.statements import on_postgresql
from backhaul.wire import Table

TEXTS = ("CHAR", "TEXT", "CLOB", "STRING", "CITEXT")

_SQLITE = """
    SELECT DISTINCT info.name AS name, said."notnull" AS required, said.type AS type
    FROM pragma_index_list(:table) AS list, pragma_index_info(list.name) AS info, pragma_table_info(:table) AS said
    WHERE list."unique" = 1 AND list.origin <> 'pk' AND said.name = info.name
"""
_POSTGRESQL = """
    SELECT DISTINCT attname AS name, attnotnull AS required, format_type(atttypid, NULL) AS type
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey)
    WHERE indrelid = to_regclass(quote_ident(:table)) AND indisunique AND NOT indisprimary
"""


class Unique(NamedTuple):
    name: str
    required: bool
    type: str


def of_table(connection: Connection, table: Table) -> dict[str, Unique]:
    """Its columns beside the key that are part of a UNIQUE constraint or index, by name."""
    statement = _POSTGRESQL if on_postgresql(connection) else _SQLITE
    found = connection.execute(text(statement), {"table": table.name})
    return {row.name: Unique(row.name, bool(row.required), row.type) for row in found if row.name not in table.key}


def set_out_of_the_way(connection: Connection, plans: Sequence[TablePlan]) -> None:
    """The UNIQUE values that these plans are about to write over."""
    aside: list[TablePlan] = []
    for plan in plans:
        unique = of_table(connection, plan.table)
        if unique:
            changed = [row for row in _rows(plan, unique) if any(row[: 2 * len(plan.others) : 2])]
            aside.append(TablePlan(table=plan.table, changed=changed))
    rows.write(connection, aside)


def _rows(plan: TablePlan, unique: dict[str, Unique]) -> list[tuple[Any, ...]]:
    """As rows of `TablePlan.changed`."""
    width, found = len(plan.table.key), list[tuple[Any, ...]]()
    for names, whole in plan.whole.items():
        written = set(names)
        found += [(*_pairs(plan, unique, written), *row[:width]) for row in whole]
    for row in plan.changed:
        written = {name for number, name in enumerate(plan.others) if row[2 * number]}
        found.append((*_pairs(plan, unique, written), *row[2 * len(plan.others) :]))
    return found


def _pairs(plan: TablePlan, unique: dict[str, Unique], written: set[str]) -> list[Any]:
    pairs: list[Any] = []
    for name in plan.others:
        known = unique.get(name) if name in written else None
        able, value = (False, None) if known is None else _nobodys(known)
        pairs += [able, value]
    return pairs


def _nobodys(column: Unique) -> tuple[bool, Any]:
    """Whether there is a value that no row has, and which."""
    declared = column.type.upper()
    if not column.required:
        return True, None
    if "UUID" in declared:
        return True, str(uuid4())
    if "INT" in declared:
        return True, -1 - secrets.randbelow(2**15 if "SMALL" in declared else 2**31)
    if not declared or any(part in declared for part in TEXTS):
        return True, f"~{secrets.token_hex(8)}"
    return False, None
