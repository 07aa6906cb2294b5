"""Upgrades: what was captured of a table under an older shape, brought to the one that it has now.

A table that was renamed (and said so: `formerly` in backhaul.toml) is renamed in all that is kept of it, and goes on
where it was. A column that was renamed (`renamed`) is renamed in every change that waits, is parked or in a conflict,
in the conflicts, in the documents of texts, and in what is fetched and not applied yet. What was sent keeps its fields,
and the server reads it under the new name. A column that was dropped here goes on in the scope: what was written to it
before goes out as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import Connection

from backhaul.replica import aside, blocks, conflicts, lanes, outbox, stage, tables, texts, unseen
from backhaul.replica.outbox import Conflicting
from backhaul.wire import Record, Table, newest_names

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def upgrade(connection: Connection, before: Table, now: Table) -> None:
    """before: as it was tracked, perhaps under another name. Nobody may write under the old shape any more."""
    names = newest_names(now.renamed)
    said = {column.name for column in before.columns}
    renamed = {old: new for old, new in names.items() if old in said}
    if renamed or before.name != now.name:
        outbox.identify(connection, before.name)
    if before.name != now.name:
        lanes.forget_footprints(connection)
        for ledger in (tables, outbox, conflicts, texts, stage, aside, blocks, unseen):
            ledger.retable(connection, before.name, now.name)
    if renamed:
        for ids in outbox.unsent(connection, now.name):
            outbox.reword(connection, [(one, reworded(fields, renamed)) for one, fields in ids])
        conflicts.rename(connection, now.name, renamed)
        texts.rename(connection, now.name, renamed)
        stage.rename(connection, now.name, renamed)
        unseen.rename(connection, now.name, renamed)


def catch_up(connection: Connection, known: Iterable[Table], changes: Sequence[Conflicting]) -> list[Conflicting]:
    """Changes that were sent under older names and are conflicts now: they will not go again as they are, and say what
    they said under the names of now."""
    names = {table.name: newest_names(table.renamed) for table in known if table.renamed}
    if not names:
        return list(changes)
    told = [
        one._replace(fields=reworded(one.fields, names[one.table])) if one.fields and one.table in names else one
        for one in changes
    ]
    pairs = zip(changes, told, strict=True)
    outbox.reword(
        connection, [(new.id, new.fields) for old, new in pairs if new.fields and new.fields is not old.fields]
    )
    return told


def under_present_names(known: Sequence[Table], records: Sequence[Record]) -> Sequence[Record]:
    """What was fetched before a table or a column was renamed here, under the names of now."""
    present = {old: table.name for table in known for old in table.formerly}
    columns = {table.name: newest_names(table.renamed) for table in known if table.renamed}
    if not present and not columns:
        return records
    return [_under_present_names(record, present, columns) for record in records]


def _under_present_names(
    record: Record, present: Mapping[str, str], columns: Mapping[str, Mapping[str, str]]
) -> Record:
    table = present.get(record.table, record.table)
    names = columns.get(table, {})
    if table == record.table and names.keys().isdisjoint(record.fields):
        return record
    fields = {names.get(name, name): value for name, value in record.fields.items()}
    return msgspec.structs.replace(record, table=table, fields=fields)


def is_harmless(before: Table, now: Table) -> bool:
    """Whether nothing of the table is gone or another: there is only more of it."""
    types = {column.name: column.type for column in now.columns}
    return before.key == now.key and all(types.get(column.name) == column.type for column in before.columns)


def new_columns(before: Table, now: Table) -> list[str]:
    """The columns that were not there before, under whichever name."""
    names = newest_names(now.renamed)
    said = {names.get(column.name, column.name) for column in before.columns}
    return [column.name for column in now.columns if column.name not in said]


def reworded(fields: bytes, names: Mapping[str, str]) -> bytes:
    """A change's fields (JSON) under these names, each value byte by byte what it was."""
    try:
        said = _fields(fields)
    except msgspec.MsgspecError:  # text that is no UTF-8: it goes nowhere, under whichever name
        return fields
    if names.keys().isdisjoint(said):
        return fields
    return msgspec.json.encode({names.get(name, name): value for name, value in said.items()})
