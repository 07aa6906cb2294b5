"""The backfill: rows that were there before `init` go to the outbox too, in batches, in key order, resumable.

Each batch is one transaction with its own progress, so a crash repeats nothing and loses nothing; new changes are
captured meanwhile. Where such a row is edited before its turn, the edit goes out first and wins: a backfilled row is
stamped as older than anything that was captured.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from backhaul.database import Database
from backhaul.replica import checkpoint, tables
from backhaul.replica.capture import row_expressions
from backhaul.replica.names import OUTBOX_COLUMNS, column_types
from backhaul.replica.rows import key_values
from backhaul.replica.rows_postgresql import cast_type
from backhaul.replica.tables import Tracked
from backhaul.statements import on_postgresql, quoted, run
from backhaul.wire import Table

BATCH = 2_000  # rows
COUNTED = "SELECT count(*), (array_agg(key ORDER BY id DESC))[1] FROM made"
LAST_KEY = "SELECT key FROM backhaul_outbox WHERE id = (SELECT max(id) FROM backhaul_outbox)"


def advance(database: Database, *, now: int, batch: int = BATCH, made_up: bool = False) -> int:
    """Send the next rows to the outbox; returns how many, 0 when every table is done.

    made_up: only of fresh tables whose keys the database makes up. They go before anything is pulled: else a record
    that another replica made under the same key would take the row's place before anybody knew of the row.
    """
    while True:
        with database.writing() as connection:
            checkpoint.hold(connection)
            waiting = [one for one in tables.checked(connection) if one.backfill == "pending"]
            waiting = [one for one in waiting if not made_up or (one.fresh and one.table.keys != "natural")]
            if not waiting:
                return 0
            rows = _enqueue(connection, waiting[0], now=now, batch=batch)
            if rows:
                return rows
            tables.backfill_done(connection, waiting[0].table.name)


def remaining(connection: Connection) -> list[str]:
    """The tables whose rows are not all in the outbox yet."""
    return tables.not_backfilled(connection)


def _enqueue(connection: Connection, tracked: Tracked, *, now: int, batch: int) -> int:
    table = tracked.table
    key = ", ".join(quoted(column) for column in table.key)
    after = key_values(connection, table, tracked.backfill_after) if tracked.backfill_after else ()
    beyond = f"WHERE ({key}) > ({key_places(connection, table)})" if after else ""
    json_key, json_fields = row_expressions(connection, table, "batch")
    # Not through text(): the generated JSON literals are full of colons, which it would take for parameters.
    statement = f"""
        INSERT INTO backhaul_outbox ({OUTBOX_COLUMNS})
        SELECT NULL, ?, {json_key}, 'backfill', {json_fields}, ?, 0, {0 if tracked.fresh else "checkpoint.position"}
        FROM (SELECT * FROM {quoted(table.name)} {beyond} ORDER BY {key} LIMIT ?) AS batch,
             backhaul_replica AS checkpoint
        ORDER BY {", ".join(f"batch.{quoted(column)}" for column in table.key)}
    """  # noqa: S608 - the names come from the database's own catalogue, quoted
    values = (table.name, now, *after, batch)
    if on_postgresql(connection):  # where others write into the outbox meanwhile
        counted = f"WITH made AS ({statement} RETURNING id, key) {COUNTED}"
        made: Any = run(connection, counted, values).one()
        rows, last = made[0], made[1]
    else:
        rows = run(connection, statement, values).rowcount
        last = connection.execute(text(LAST_KEY)).scalar()
    if rows:
        tables.backfilled(connection, table.name, after=last, rows=rows)
    return int(rows)


def key_places(connection: Connection, table: Table) -> str:
    if not on_postgresql(connection):
        return ", ".join("?" * len(table.key))
    types = column_types(table)
    return ", ".join(f"CAST(CAST(? AS text) AS {cast_type(types[column])})" for column in table.key)
