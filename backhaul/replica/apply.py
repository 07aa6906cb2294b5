"""Applying records of the server to the app's tables: three statements a table, whatever a page holds.

What this replica has changed and the feed does not include yet stays on top (read your writes): fields that an
unsettled change names are withheld, and a record that an unsettled change deletes is left deleted. Nothing is lost by
that: when the change is settled, the server gives the record a new version, and the feed brings what won. If the feed
has brought that before the change is settled here, the record is fetched again (see outbox/settling.py, refetch.py).

Tables and columns that this replica does not track are left out; a later `init` that tracks them pulls from the
beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, text

from backhaul.replica import checkpoint, conflicts, outbox, overlay, rows, unseen
from backhaul.replica.fitting import Fitting, Refused
from backhaul.replica.rows import Row, TablePlan
from backhaul.replica.upgrades import reworded
from backhaul.statements import as_bytes, members
from backhaul.wire import Record, Table, Tagged, Value, canonical_key, newest_names, to_plain

DELETED = frozenset({unseen.ALL})  # in place of field names: the whole record is withheld
BY_BASE = frozenset({"custom", "manual"})  # what the server judges by what the app had seen


class Over(NamedTuple):
    """What of ours lies over records that come in. changes: kind and fields (as bytes), by key, oldest first. judged:
    the keys of those of which the app may write more, to be judged by what it has seen."""

    changes: dict[str, list[Row]]
    judged: set[str]


def apply_what_fits(
    connection: Connection, tables: Sequence[Table], records: Sequence[Record], position: int
) -> tuple[int, list[Refused]]:
    """Apply what the server says of these records, with capture muted; returns how many were touched, and those that
    the app's schema refuses, each with the reason.

    position: of the feed; what the server took after it may not be in these records.
    """
    fitting = Fitting(connection, tables, lambda some: _plans(connection, tables, some, position))
    refused = fitting.write(records)
    return fitting.touched, refused


def lay_under(
    connection: Connection, tables: Sequence[Table], records: Sequence[Record], position: int
) -> list[Refused]:
    """Make the records what the server says they are, whole, and lay over it what our unsettled changes say, in order;
    returns those that the app's schema refuses, each with the reason: their rows stay as they are.

    Unlike a page of the feed, this takes away what a change has left here that was given up.
    """
    conflicts.forget_withheld(connection, records)
    return lay_under_again(connection, tables, records, position)


def lay_under_again(
    connection: Connection, tables: Sequence[Table], records: Sequence[Record], position: int
) -> list[Refused]:
    """The same, of records that were refused before; what is withheld of them stays withheld."""
    return Fitting(connection, tables, lambda some: _plans_under(connection, tables, some, position)).write(records)


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
        plan = _empty_plan(connection, table, list(ours.values()), position)
        over = _unsettled(connection, table, list(ours.values()), position).changes
        unseen.narrow(connection, table.name, {key: _withheld(over.get(key, [])) for key in ours})
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
    plan = _empty_plan(connection, table, records, position)
    over, judged = _unsettled(connection, table, records, position)
    if over:
        outbox.told(connection, table.name, list(over), position)
    hidden: dict[str, frozenset[str]] = {}
    kept: list[tuple[Record, frozenset[str]]] = []
    for record in records:
        key = canonical_key(record.key) if over else ""
        changes = over.get(key, [])
        withheld = _withheld(changes)
        if changes and record.whole:
            _plan_missing(plan, _laid_over(table, record, changes))
        if changes and table.merge:
            record, withheld = overlay.shown(table, record, changes, withheld)
        if key in judged and (names := _hidden(record, withheld)):
            hidden[key] = names
        _plan(plan, record, withheld)
        kept.append((record, withheld))
    overlay.keep_documents(connection, table, kept)
    if hidden:
        unseen.note(connection, table.name, hidden, seen=checkpoint.read(connection).position)
    return plan


def _empty_plan(connection: Connection, table: Table, records: Sequence[Record], position: int) -> TablePlan:
    """With the rows held, so that what the outbox tells of them from now on is all that the app can have written. A row
    that is not here cannot be held: when it has been written, the outbox is asked once more."""
    held = rows.hold(connection, table, [_plain_key(record.key) for record in records])
    loose = [record for place, record in enumerate(records) if place not in held]
    known = _unsettled(connection, table, loose, position).changes if loose else {}

    def outdated() -> bool:
        return bool(loose) and _unsettled(connection, table, loose, position).changes != known

    return TablePlan(table=table, outdated=outdated)


def _hidden(record: Record, withheld: frozenset[str]) -> frozenset[str]:
    """What the record tells and the app does not get to see."""
    return DELETED if withheld and (record.deleted or withheld == DELETED) else withheld & record.fields.keys()


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


def _unsettled(connection: Connection, table: Table, records: Sequence[Record], position: int) -> Over:
    """The changes that are not in these records yet.

    What the server took is in a record from that version of it on. A record may have been fetched long before the
    position that is applied now (see stage.py), and what came after it of ours alone does not come again.
    """
    statement = f"""
        SELECT key, kind, {as_bytes(connection, "fields")}, CASE WHEN state = 'acked' THEN version END, state
        FROM backhaul_outbox
        WHERE table_name = :table AND key IN ({members(connection, "keys")})
          AND (state IN ('pending', 'sent', 'parked', 'conflict', 'held') OR state = 'acked' AND version IS NOT NULL)
        ORDER BY id
    """  # noqa: S608 - the parts are constants
    reached = {canonical_key(record.key): record.version or position for record in records}
    values = {"table": table.name, "keys": msgspec.json.encode(list(reached)).decode()}
    names = newest_names(table.renamed)  # what was sent under an old name is about the column that has the new one
    by_base = table.deletes == "edit_wins" or not BY_BASE.isdisjoint(table.deltas().values())
    states = {"sent", "parked"}  # what is pending, or will be, is judged first, itself
    states |= {"pending", "held"} if by_base else set()
    found, judged = dict[str, list[Row]](), set[str]()
    for key, kind, fields, taken, state in connection.execute(text(statement), values):
        if taken is not None and taken <= reached[key]:
            continue
        found.setdefault(key, []).append((kind, reworded(fields, names) if names and fields else fields))
        if state in states and kind != "backfill":
            judged.add(key)
    return Over(found, judged)


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
