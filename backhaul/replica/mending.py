"""Mending: a parked change says something else, here too, and goes out again.

What the person says becomes the row's value here, unless a later change of ours has said something of the same field;
the change, and what may not stay behind, is sent as new ops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from backhaul.database import Database
from backhaul.errors import Misused, Unknown
from backhaul.replica import checkpoint, outbox, parked, rekeying, rows, tables
from backhaul.replica.misfit import Misfit
from backhaul.replica.rows import TablePlan
from backhaul.wire import Table, Value, encode, from_plain, to_plain

EDITABLE = ("insert", "update", "backfill")


def edit(database: Database, op_id: str, fields: Mapping[str, Any], *, now: int) -> int:
    """Have a parked change say these fields (Python values, or wire values), and send it again; returns how many
    changes go out. Raises Unknown, Misused: nothing is changed then."""
    with database.writing() as connection:
        checkpoint.hold(connection)
        known = {one.table.name: one.table for one in tables.checked(connection)}
        chosen = [row for row in parked.chosen(connection, [op_id]) if row["op_id"] == op_id]
        change = next(row for row in outbox.parked_as_they_are(connection) if row.id == chosen[0]["id"])
        table = known.get(change.table_name)
        if table is None:
            raise Unknown(f"table {change.table_name!r} is not synced any more", hint="backhaul parked discard")
        said = {name: from_plain(value) for name, value in fields.items()}
        _check(table, change.kind, said)
        rows.hold_all(connection, [table], [(table.name, bytes(change.key).decode())])
        parked.park_dependents(connection, now=now)
        said |= _set_here(connection, table, change, said)
        members = msgspec.json.decode(bytes(change.fields or b"{}"), type=dict[str, Raw])
        members |= {name: Raw(encode(value)) for name, value in said.items()}
        text = b"{" + b",".join(encode(name) + b":" + bytes(value) for name, value in members.items()) + b"}"
        going = parked.with_all_that_waits(outbox.parked(connection), [change.id])
        outbox.rewrite(connection, [(bytes(change.key).decode(), text, change.id)])
        return outbox.requeue(connection, going, now=now)


def _check(table: Table, kind: str, said: Mapping[str, Value]) -> None:
    columns = [column.name for column in table.columns]
    if kind not in EDITABLE:
        raise Misused(f"a {kind} has no fields", hint="backhaul parked retry or discard")
    if not said:
        raise Misused("no field is named", hint="backhaul parked edit OP name=value")
    for name in said:
        if name in table.key:
            hint = "backhaul parked remap gives it another number" if table.keys != "natural" else "discard it instead"
            raise Misused(f"{table.name}.{name} is part of the primary key", hint=hint)
        if name not in columns:
            raise Misused(f"{table.name} has no column {name!r}", hint=f"its columns: {', '.join(columns)}")
        if kind == "update" and name in table.deltas():
            why = f"{table.name}.{name} is merged by what was done to it ({table.merge[name]}), not by a value"
            raise Misused(why, hint="discard the change, and write the row again")


def _set_here(connection: Connection, table: Table, change: Any, said: Mapping[str, Value]) -> dict[str, Value]:
    """The row here, but for fields that a later change of ours has written; returns what the database made of it."""
    free = {name: value for name, value in said.items() if name not in _written_later(connection, change)}
    if not free:
        return {}
    plan = TablePlan(table=table)
    pairs = [part for name in plan.others for part in (name in free, to_plain(free.get(name)))]
    key = msgspec.json.decode(bytes(change.key), type=list[Value])
    plan.changed.append((*pairs, *(to_plain(part) for part in key)))
    checkpoint.mute(connection)
    try:
        rows.write(connection, [plan])
    except (DBAPIError, Misfit) as error:
        reason = rows.refusal(error)
        if reason is None:
            raise
        raise Misused(f"this database refuses it: {reason}", hint="nothing was changed") from error
    checkpoint.unmute(connection)
    row = rekeying.row_as_it_is(connection, table, key)
    return {} if row is None else {name: row.get(name) for name in free}


def _written_later(connection: Connection, change: Any) -> set[str]:
    later: set[str] = set()
    for row in _later(connection, change):
        later |= set(msgspec.json.decode(bytes(row.fields), type=dict[str, Raw])) if row.fields else set()
    return later


def _later(connection: Connection, change: Any) -> Sequence[Any]:
    return [
        row
        for row in outbox.parked_as_they_are(connection)
        if row.id > change.id and (row.table_name, bytes(row.key)) == (change.table_name, bytes(change.key))
    ]
