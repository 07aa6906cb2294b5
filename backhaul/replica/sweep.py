"""The end of a recovery from the beginning: records that the server did not tell of are gone there, and so long that
their tombstones are forgotten. They are deleted here, too, unless a change of them waits: then the row is set aside
until the server has judged that change (`record-gone`: a person decides), and goes when nothing waits any more. The
parts of an aggregate that a change of ours touches are withheld, as in any page; and what was withheld before, or is
shown in a conflict, of a record that did not come is no more.

What is to go is looked for without a lock, for a table may be large; it goes in one transaction, if no page of the feed
was applied in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection

from backhaul.database import Database
from backhaul.replica import aside, checkpoint, stage, tables, withheld
from backhaul.replica import rows as app_rows
from backhaul.replica.apart import Ours, apart
from backhaul.replica.apply import apply_what_fits
from backhaul.replica.arriving import Arriving
from backhaul.replica.backfill import key_places
from backhaul.replica.capture import row_expressions
from backhaul.replica.tables import Tracked
from backhaul.statements import quoted, run
from backhaul.telemetry import emit
from backhaul.wire import Table, Value, canonical_key

Place = tuple[str, str]


def sweep(database: Database, *, now: int, arriving: Arriving) -> int:
    """Returns how many records were deleted."""
    while True:
        with database.reading() as connection:
            since, names = checkpoint.read(connection).cursor, _names(connection)
            gone, held = list(_gone(connection)), list(_gone(connection, held=True))
        with database.writing() as connection:
            checkpoint.hold(connection)
            known = checkpoint.read(connection)
            if known.recovering != "sweep":
                return 0
            if (known.cursor, _names(connection)) == (since, names):  # else a page came, or `init` renamed a table
                judged = {one.table.name for one in _judged(connection)}
                unheard = [place for place in withheld.not_come(connection) if place[0] in judged]
                if gone:
                    arriving(connection, frozenset(table for table, _ in gone))
                deleted = _delete(connection, [*dict.fromkeys([*gone, *unheard])], known.position, now=now)
                for table, key in held:
                    aside.keep(connection, table, key, reason=aside.HELD, now=now)
                stage.clear(connection)
                checkpoint.recover(connection, "")
                break
    emit("replica.recovered", deleted=deleted, offered=0)
    return deleted


def _names(connection: Connection) -> list[str]:
    return [one.table.name for one in tables.all_tracked(connection)]


def _gone(connection: Connection, *, held: bool = False) -> Iterator[Place]:
    """Rows that did not come, and of which nothing waits (held: something does).

    A table whose rows are sent for the first time keeps those that were not sent yet. One in which rows may be that no
    trigger saw keeps all: here is their only copy, and the suspicion sends them.
    """
    for one in _judged(connection):
        statement, after = _not_come(connection, one.table, None if _all_sent(one) else one.backfill_after, held=held)
        for (key,) in run(connection, statement, (one.table.name, one.table.name, *after)):
            yield one.table.name, key


def _judged(connection: Connection) -> Iterator[Tracked]:
    suspects = tables.under_suspicion(connection)
    for one in tables.all_tracked(connection):
        if one.table.name not in suspects and (_all_sent(one) or one.backfill_after is not None):
            yield one


def _all_sent(one: Tracked) -> bool:
    return one.backfill == "done" or not one.fresh


def _not_come(
    connection: Connection, table: Table, upto: Sequence[Value] | None, *, held: bool
) -> tuple[str, Sequence[Any]]:
    """upto: only rows up to this key. Returns the parameters for that, too."""
    key, _ = row_expressions(connection, table, "held")
    sent, after = "", app_rows.key_values(connection, table, upto) if upto is not None else ()
    if after:
        columns = ", ".join(f"held.{quoted(column)}" for column in table.key)
        sent = f"AND ({columns}) <= ({key_places(connection, table)})"
    statement = f"""
        SELECT {key} FROM {quoted(table.name)} AS held
        WHERE {key} NOT IN (SELECT key FROM backhaul_stage WHERE table_name = ? AND deleted = 0)
          AND {key} {"IN" if held else "NOT IN"} (SELECT key FROM backhaul_outbox WHERE table_name = ?)
          {sent}
    """  # noqa: S608 - the catalogue's own names, quoted
    return statement, after


def _delete(connection: Connection, gone: Sequence[Place], position: int, *, now: int) -> int:
    tracked = tables.checked(connection)
    shapes, ours = [one.table for one in tracked], Ours(connection, tracked)
    touched = 0
    for at in range(0, len(gone), stage.CHUNK):
        records = [withheld.absent(place) for place in gone[at : at + stage.CHUNK]]
        parts = apart(connection, ours, records, now=now)
        deleted, refused = apply_what_fits(connection, shapes, [*parts.released, *parts.records], position)
        touched += deleted
        for record, reason in refused:
            aside.keep(connection, record.table, canonical_key(record.key), reason=reason, now=now)
    return touched
