"""Applying a page of the feed to the app's tables: three statements a table, whatever the page holds.

What this replica has changed and the feed does not include yet stays on top (read your writes): fields that an
unsettled change names are withheld, and a record that an unsettled change deletes is left deleted. Nothing is lost by
that: when the change is settled, the server gives the record a new version, and the feed brings what won.

Tables and columns that this replica does not track are left out; a later `init` that tracks them pulls from the
beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import msgspec
from sqlalchemy import Connection, text

from backhaul.replica import checkpoint
from backhaul.replica.capture import field_names, quoted
from backhaul.wire import Page, Record, Table, canonical_key, to_plain

DELETED = frozenset({"*"})  # in place of field names: the whole record is withheld


Row = tuple[Any, ...]


@dataclass(kw_only=True)
class TablePlan:
    """What a page does to one table, as parameters of its three statements.

    deleted: keys. whole: by the names of the fields, key and then fields. changed: for each field whether it changed
    and its value, and then the key.
    """

    table: Table
    deleted: list[Row] = field(default_factory=list)
    whole: dict[tuple[str, ...], list[Row]] = field(default_factory=dict)
    changed: list[Row] = field(default_factory=list)

    @property
    def others(self) -> list[str]:
        """The columns that are not the key."""
        return field_names(self.table)


def apply_page(connection: Connection, tables: Sequence[Table], page: Page) -> int:
    """Apply the page with capture muted; returns how many records were touched."""
    checkpoint.mute(connection)
    touched = 0
    for table in tables:
        records = [record for record in page.records if record.table == table.name]
        if records:
            touched += _apply_table(connection, table, records, page.position)
    checkpoint.unmute(connection)
    return touched


def apply_records(connection: Connection, tables: Sequence[Table], records: Sequence[Record]) -> None:
    """Put records as the server has them, whole, over what is here (see parked.discard)."""
    checkpoint.mute(connection)
    for table in tables:
        plan = TablePlan(table=table)
        for record in records:
            if record.table == table.name:
                _plan(plan, record, frozenset())
        _execute(connection, plan)
    checkpoint.unmute(connection)


def delete_records(connection: Connection, table: Table, keys: Sequence[list[Any]]) -> None:
    """Delete records that the server does not have."""
    checkpoint.mute(connection)
    plan = TablePlan(table=table, deleted=[_plain_key(key) for key in keys])
    _execute(connection, plan)
    checkpoint.unmute(connection)


def _apply_table(connection: Connection, table: Table, records: Sequence[Record], position: int) -> int:
    withheld = _withheld(connection, table.name, [canonical_key(record.key) for record in records], position)
    plan = TablePlan(table=table)
    for record in records:
        _plan(plan, record, withheld.get(canonical_key(record.key), frozenset()) if withheld else frozenset())
    _execute(connection, plan)
    return len(plan.changed) + len(plan.deleted) + sum(len(rows) for rows in plan.whole.values())


def _withheld(connection: Connection, table: str, keys: Sequence[str], position: int) -> dict[str, frozenset[str]]:
    """For each of the records that has unsettled changes: the names of the fields that stay as they are here."""
    statement = """
        SELECT key, kind, fields FROM backhaul_outbox
        WHERE table_name = :table AND key IN (SELECT value FROM json_each(:keys))
          AND (state IN ('pending', 'sent', 'parked', 'conflict') OR state = 'acked' AND version > :position)
        ORDER BY id
    """
    values = {"table": table, "keys": msgspec.json.encode(keys).decode(), "position": position}
    withheld: dict[str, frozenset[str]] = {}
    for key, kind, fields in connection.execute(text(statement), values):
        if kind == "delete":
            withheld[key] = DELETED
        elif kind != "void":
            names = frozenset(msgspec.json.decode(fields, type=dict[str, msgspec.Raw]))
            withheld[key] = names if kind == "insert" else (withheld.get(key, frozenset()) - DELETED) | names
    return withheld


def _plan(plan: TablePlan, record: Record, withheld: frozenset[str]) -> None:
    if withheld == DELETED or (record.deleted and withheld):
        return
    key = _plain_key(record.key)
    fields = {name: to_plain(value) for name, value in record.fields.items() if name not in withheld}
    if record.deleted:
        plan.deleted.append(key)
    elif record.whole and not withheld:
        names = tuple(name for name in plan.others if name in fields)
        plan.whole.setdefault(names, []).append(key + tuple(fields[name] for name in names))
    else:
        pairs = ((name in fields, fields.get(name)) for name in plan.others)
        plan.changed.append((*chain.from_iterable(pairs), *key))


def _plain_key(key: Sequence[Any]) -> Row:
    return tuple(to_plain(part) for part in key)


def _execute(connection: Connection, plan: TablePlan) -> None:
    """Deletes first: a row that took a deleted one's place must find it free."""
    if plan.deleted:
        connection.exec_driver_sql(_delete(plan.table), plan.deleted)
    for names, rows in plan.whole.items():
        connection.exec_driver_sql(_upsert(plan.table, names), rows)
    if plan.changed and plan.others:
        connection.exec_driver_sql(_update(plan.table, plan.others), plan.changed)


def _delete(table: Table) -> str:
    return f"DELETE FROM {quoted(table.name)} WHERE {_is_the_key(table)}"  # noqa: S608 - the catalogue's own names


def _upsert(table: Table, names: Sequence[str]) -> str:
    columns = [*table.key, *names]
    assign = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in names)
    return f"""
        INSERT INTO {quoted(table.name)} ({", ".join(map(quoted, columns))}) VALUES ({", ".join("?" * len(columns))})
        ON CONFLICT ({", ".join(map(quoted, table.key))}) DO {"UPDATE SET " + assign if names else "NOTHING"}
    """  # noqa: S608 - the catalogue's own names, quoted


def _update(table: Table, names: Sequence[str]) -> str:
    assign = ", ".join(f"{quoted(name)} = CASE WHEN ? THEN ? ELSE {quoted(name)} END" for name in names)
    return f"UPDATE {quoted(table.name)} SET {assign} WHERE {_is_the_key(table)}"  # noqa: S608 - the same


def _is_the_key(table: Table) -> str:
    return " AND ".join(f"{quoted(column)} = ?" for column in table.key)
