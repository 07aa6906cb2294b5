"""Applying records of the server to the app's tables: three statements a table, whatever a page holds.

What this replica has changed and the feed does not include yet stays on top (read your writes): fields that an
unsettled change names are withheld, and a record that an unsettled change deletes is left deleted. Nothing is lost by
that: when the change is settled, the server gives the record a new version, and the feed brings what won. If the feed
has brought that before the change is settled here, the record is fetched once more (see outbox.py, refetch.py).

Tables and columns that this replica does not track are left out; a later `init` that tracks them pulls from the
beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
from sqlalchemy import Connection, text

from backhaul.replica import checkpoint, conflicts, outbox, overlay
from backhaul.replica import rows as app_rows
from backhaul.replica.fitting import Fitting, Refused
from backhaul.replica.rows import Row, TablePlan
from backhaul.replica.upgrades import reworded
from backhaul.statements import as_bytes, members
from backhaul.wire import Record, Table, Tagged, Value, canonical_key, newest_names, to_plain

DELETED = frozenset({"*"})  # in place of field names: the whole record is withheld


def apply_what_fits(
    connection: Connection, tables: Sequence[Table], records: Sequence[Record], position: int
) -> tuple[int, list[Refused]]:
    """Apply what the server says of these records, with capture muted; returns how many were touched, and those that
    the app's schema refuses, each with the reason.

    position: of the feed; what the server took after it may not be in these records.
    """
    fitting = Fitting(connection, lambda some: _plans(connection, tables, some, position))
    refused = fitting.write(records)
    return fitting.touched, refused


def lay_under_what_fits(
    connection: Connection, tables: Sequence[Table], records: Sequence[Record], position: int
) -> list[Refused]:
    """As `lay_under`, but for the records that the app's schema refuses: they are returned, each with the reason."""
    return Fitting(connection, lambda some: _plans_under(connection, tables, some, position)).write(records)


def lay_under(connection: Connection, tables: Sequence[Table], records: Sequence[Record], position: int) -> None:
    """Make the records what the server says they are, whole, and lay over it what our unsettled changes say, in order.

    Unlike a page of the feed, this takes away what a change has left here that was given up.
    """
    conflicts.forget_withheld(connection, records)
    checkpoint.mute(connection)
    app_rows.write(connection, _plans_under(connection, tables, records, position))
    checkpoint.unmute(connection)


def _plans(
    connection: Connection, tables: Sequence[Table], records: Sequence[Record], position: int
) -> list[TablePlan]:
    plans = []
    for table in tables:
        ours = [record for record in records if record.table == table.name]
        if ours:
            plans.append(_planned(connection, table, ours, position))
    return plans


def _plans_under(
    connection: Connection, tables: Sequence[Table], records: Sequence[Record], position: int
) -> list[TablePlan]:
    plans = []
    for table in tables:
        ours = {canonical_key(record.key): record for record in records if record.table == table.name}
        over = _unsettled(connection, table, list(ours.values()), position)
        plan = TablePlan(table=table)
        kept: list[tuple[Record, frozenset[str]]] = []
        for key, record in ours.items():
            laid = _laid_over(table, record, over.get(key, []))
            if laid is not None:
                _plan(plan, laid, frozenset())
                kept.append((laid, frozenset()))
        plans.append(plan)
        overlay.keep_documents(connection, table, kept)
    return plans


def _laid_over(table: Table, record: Record, changes: Sequence[Row]) -> Record | None:
    """changes: kind and fields (JSON, as bytes: an app can store text that is no UTF-8), oldest first.

    None: an update waits on a record that is deleted there; the row stays until the server has spoken of the update.
    Of a record that never was there (version 0) it will not speak, and nothing stays.
    """
    deleted, fields = record.deleted, dict(record.fields)
    documents = overlay.Documents(record)
    for kind, said in changes:
        names = msgspec.json.decode(said.decode(errors="replace"), type=dict[str, Value]) if said else {}
        if table.merge and said:
            names = overlay.plain(table, kind, msgspec.to_builtins(names), fields, documents)
        if kind == "delete":
            deleted, fields = True, {}
        elif kind == "insert":
            deleted, fields = False, fields | names
        elif kind == "backfill":  # older than whatever the server has
            deleted, fields = deleted and record.version > 0, names | fields
        elif kind == "update" and not deleted:
            fields |= names
        elif kind == "update" and record.version:
            return None
    for name, state in documents.kept.items():
        fields[name] = Tagged(text=str(to_plain(fields.get(name)) or ""), state=state.hex())
    return Record(
        table=record.table, key=record.key, version=record.version, whole=not deleted, deleted=deleted, fields=fields
    )


def _planned(connection: Connection, table: Table, records: Sequence[Record], position: int) -> TablePlan:
    over = _unsettled(connection, table, records, position)
    if over:
        outbox.told(connection, table.name, list(over), position)
    plan = TablePlan(table=table)
    kept: list[tuple[Record, frozenset[str]]] = []
    for record in records:
        changes = over.get(canonical_key(record.key), []) if over else []
        withheld = _withheld(changes)
        if changes and record.whole:
            _plan_missing(plan, _laid_over(table, record, changes))
        if changes and table.merge:
            record, withheld = overlay.shown(table, record, changes, withheld)
        _plan(plan, record, withheld)
        kept.append((record, withheld))
    overlay.keep_documents(connection, table, kept)
    return plan


def _withheld(changes: Sequence[Row]) -> frozenset[str]:
    """The names of the fields that stay as they are here, under these changes."""
    withheld: frozenset[str] = frozenset()
    for kind, fields in changes:
        if kind == "delete":
            withheld = DELETED
        elif kind != "void":
            names = frozenset(msgspec.json.decode(fields, type=dict[str, msgspec.Raw]))
            withheld = names if kind == "insert" else (withheld - DELETED) | names
    return withheld


def _unsettled(connection: Connection, table: Table, records: Sequence[Record], position: int) -> dict[str, list[Row]]:
    """The changes that are not in these records yet: kind and fields (as bytes), by key, oldest first.

    What the server took is in a record from that version of it on. A record may have been fetched long before the
    position that is applied now (see stage.py), and what came after it of ours alone does not come again.
    """
    statement = f"""
        SELECT key, kind, {as_bytes(connection, "fields")}, CASE WHEN state = 'acked' THEN version END
        FROM backhaul_outbox
        WHERE table_name = :table AND key IN ({members(connection, "keys")})
          AND (state IN ('pending', 'sent', 'parked', 'conflict') OR state = 'acked' AND version IS NOT NULL)
        ORDER BY id
    """  # noqa: S608 - the parts are constants
    reached = {canonical_key(record.key): record.version or position for record in records}
    values = {"table": table.name, "keys": msgspec.json.encode(list(reached)).decode()}
    names = newest_names(table.renamed)  # what was sent under an old name is about the column that has the new one
    found: dict[str, list[Row]] = {}
    for key, kind, fields, taken in connection.execute(text(statement), values):
        if taken is not None and taken <= reached[key]:
            continue
        found.setdefault(key, []).append((kind, reworded(fields, names) if names and fields else fields))
    return found


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


def _plan_missing(plan: TablePlan, laid: Record | None) -> None:
    """The row as it is to be if it is not here: what an update changed may have been given up, or refused, before."""
    if laid is not None and not laid.deleted:
        names = tuple(name for name in plan.others if name in laid.fields)
        row = (*_plain_key(laid.key), *(to_plain(laid.fields[name]) for name in names))
        plan.missing.setdefault(names, []).append(row)


def _plain_key(key: Sequence[Any]) -> Row:
    return tuple(to_plain(part) for part in key)
