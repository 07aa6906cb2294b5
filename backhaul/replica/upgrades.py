"""Upgrades: what was captured of a table under an older shape, brought to the one that it has now.

A column that was renamed (and said so: `renamed` in backhaul.toml) is renamed in every change that waits, is parked or
is a conflict; what was sent keeps its bytes, and the server reads it under the new name. A column that was dropped here
goes on in the scope: what was written to it before goes out as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from sqlalchemy import Connection

from backhaul.replica import conflicts, outbox
from backhaul.wire import Table, newest_names

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def upgrade(connection: Connection, before: Table, now: Table) -> None:
    names = newest_names(now.renamed)
    said = {column.name for column in before.columns}
    renamed = {old: new for old, new in names.items() if old in said}
    if renamed:
        for ids in outbox.unsent(connection, now.name):
            outbox.reword(connection, [(one, reworded(fields, renamed)) for one, fields in ids])
        conflicts.rename(connection, now.name, renamed)


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
