"""Suspicion: rows that may have been edited while their table had no triggers of ours, held against the server.

A table that is copied, dropped and renamed loses its triggers, and nobody is told. When `init` has made them anew, the
pull goes to the head and then through the table, in chunks by key: what the server says of a record, with our own
unsettled changes laid over it, is laid into the table on trial, so that the database itself says what it would hold
then; the trial is taken back. Where the row was something else, somebody has edited it meanwhile, and that becomes a
change of now. Where another replica has written the same field in that time, its value has come with the pull and
stands. A row that was deleted in that time comes back: what is not there cannot be told from what was lost.

A row of which the server knows nothing was made in that time, or was deleted elsewhere, so long ago that it is
forgotten. It goes out as a backfill that had seen no more than the table had when it was doubted: if the server has
forgotten deletions since, it makes nothing anew of that (`record-gone`), and a person decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.remotes.base import Remote
from backhaul.replica import apply, checkpoint, outbox, refetch, tables
from backhaul.replica import rows as app_rows
from backhaul.replica.backfill import key_places
from backhaul.replica.capture import row_expressions
from backhaul.replica.context import Context
from backhaul.replica.names import field_names
from backhaul.replica.tables import Suspect
from backhaul.statements import as_bytes, quoted, run
from backhaul.telemetry import emit
from backhaul.wire import Record, Table, Value, canonical_key

CHUNK = 500  # rows; as many records are asked for at once

Fields = dict[str, msgspec.Raw]
_fields = msgspec.json.Decoder(Fields).decode
_key = msgspec.json.Decoder(list[Value]).decode


def settle(database: Database, remote: Remote, *, clock: Clock, context: Context) -> int:
    """Look at what is left to look at; returns how many changes were found. Raises what a pull raises."""
    found = 0
    while True:
        context.check()
        with database.reading() as connection:
            suspect = tables.suspect(connection)
            if suspect is None:
                return found
            since = checkpoint.read(connection).cursor
            table = _table(connection, suspect)
            keys = list(_rows(connection, table, suspect.after)) if table is not None else []
        there = refetch.ask(remote, [(suspect.table, _key(key)) for key in keys]) if keys else []
        with database.writing() as connection:
            checkpoint.hold(connection)
            tables.checked(connection)
            known = checkpoint.read(connection)
            if known.cursor != since or tables.suspect(connection) != suspect:
                continue  # a page came in between: the records may be older than it
            if any(record.version > known.position for record in there):
                return found  # the feed has more to tell first: with the next pull
            if not keys or table is None:
                tables.cleared(connection, suspect)
                continue
            changes = _found(connection, table, suspect, keys, there, known.position)
            outbox.found(connection, suspect.table, changes, now=clock.now())
            tables.cleared_to(connection, suspect, keys[-1])
        found += len(changes)
        if changes:
            emit("capture.made_up_for", table=suspect.table, changes=len(changes))


def _table(connection: Connection, suspect: Suspect) -> Table | None:
    return next((one.table for one in tables.checked(connection) if one.table.name == suspect.table), None)


def _found(
    connection: Connection,
    table: Table,
    suspect: Suspect,
    keys: Sequence[str],
    there: Sequence[Record],
    position: int,
) -> list[outbox.Found]:
    """The changes that nobody has captured."""
    app_rows.hold_all(connection, [table], [(table.name, key) for key in keys])
    deleted = {canonical_key(record.key) for record in there if record.deleted}
    held = {key: fields for key, fields in _rows(connection, table, suspect.after).items() if key in set(keys)}
    expected = _expected(connection, table, suspect, keys, there, position)
    changes = list[outbox.Found]()
    for key, fields in held.items():
        was = expected.get(key)
        if was is None and canonical_key(_key(key)) in deleted:
            changes.append(outbox.Found(key, "insert", _text(fields), position))
            continue
        if was is None:
            changes.append(outbox.Found(key, "backfill", _text(fields), suspect.base))
            continue
        names = [name for name in suspect.columns if name in fields and bytes(fields[name]) != bytes(was[name])]
        if names:
            told = _text({name: _told(table, name, was, fields) for name in names})
            changes.append(outbox.Found(key, "update", told, position))
    return changes


def _expected(
    connection: Connection,
    table: Table,
    suspect: Suspect,
    keys: Sequence[str],
    there: Sequence[Record],
    position: int,
) -> dict[str, Fields]:
    """The rows as they would be by what the server and our own changes say. Of one that this database refuses, what it
    holds now: it is not judged."""
    records = [*there, *refetch.never_were([(table.name, _key(key)) for key in keys], there)]
    trial = connection.begin_nested()
    try:
        apply.lay_under(connection, [table], records, position)
        return _rows(connection, table, suspect.after)
    finally:
        trial.rollback()


def _rows(connection: Connection, table: Table, after: Sequence[Any] | None) -> dict[str, Fields]:
    """The next rows in the order of their keys: key (JSON) -> fields, as the triggers write them."""
    key = ", ".join(map(quoted, table.key))
    values = app_rows.key_values(connection, table, after) if after else ()
    beyond = f"WHERE ({key}) > ({key_places(connection, table)})" if after else ""
    json_key, json_fields = row_expressions(connection, table, "held")
    statement = f"""
        SELECT {json_key}, {as_bytes(connection, json_fields)}
        FROM (SELECT * FROM {quoted(table.name)} {beyond} ORDER BY {key} LIMIT ?) AS held
        ORDER BY {", ".join(f"held.{quoted(column)}" for column in table.key)}
    """  # noqa: S608 - the catalogue's own names, quoted
    rows: Any = run(connection, statement, (*values, CHUNK)).all()
    return {key: _fields(bytes(fields)) if field_names(table) else {} for key, fields in rows}


def _told(table: Table, name: str, was: Fields, now: Fields) -> Any:
    """As a trigger tells of it."""
    return {"was": was[name], "now": now[name]} if name in table.deltas() else now[name]


def _text(fields: Any) -> str:
    return msgspec.json.encode(fields).decode()
