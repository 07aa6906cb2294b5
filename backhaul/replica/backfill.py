"""The backfill: rows that were there before `init` go to the outbox too, in batches, in key order, resumable.

Each batch is one transaction with its own progress, so a crash repeats nothing and loses nothing; new changes are
captured meanwhile. Where such a row is edited before its turn, the edit goes out first and wins: a backfilled row is
stamped as older than anything that was captured.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from backhaul.database import Database
from backhaul.replica import tables
from backhaul.replica.capture import COLUMNS, field_names, fields_expression, key_expression, quoted
from backhaul.replica.tables import Tracked

BATCH = 2_000  # rows


def advance(database: Database, *, now: int, batch: int = BATCH, made_up: bool = False) -> int:
    """Send the next rows to the outbox; returns how many, 0 when every table is done.

    made_up: only of fresh tables whose keys the database makes up. They go before anything is pulled: else a record
    that another replica made under the same key would take the row's place before anybody knew of the row.
    """
    while True:
        with database.writing() as connection:
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
    return [one.table.name for one in tables.all_tracked(connection) if one.backfill == "pending"]


def _enqueue(connection: Connection, tracked: Tracked, *, now: int, batch: int) -> int:
    table = tracked.table
    key = ", ".join(quoted(column) for column in table.key)
    after = [_bound(part) for part in tracked.backfill_after or []]
    beyond = f"WHERE ({key}) > ({', '.join('?' * len(after))})" if after else ""
    # Not through text(): the generated JSON literals are full of colons, which it would take for parameters.
    statement = f"""
        INSERT INTO backhaul_outbox ({COLUMNS})
        SELECT NULL, ?, {key_expression(table.key, "batch")}, 'backfill',
               {fields_expression(field_names(table), "batch")}, ?, 0,
               {0 if tracked.fresh else "checkpoint.position"}
        FROM (SELECT * FROM {quoted(table.name)} {beyond} ORDER BY {key} LIMIT ?) AS batch,
             backhaul_replica AS checkpoint
        ORDER BY {", ".join(f"batch.{quoted(column)}" for column in table.key)}
    """  # noqa: S608 - the names come from the database's own catalogue, quoted
    rows = connection.exec_driver_sql(statement, (table.name, now, *after, batch)).rowcount
    if rows:
        tables.backfilled(connection, table.name, after=_last_key(connection), rows=rows)
    return rows


def _last_key(connection: Connection) -> str:
    statement = "SELECT key FROM backhaul_outbox WHERE id = (SELECT max(id) FROM backhaul_outbox)"
    return str(connection.execute(text(statement)).scalar_one())


def _bound(part: object) -> object:
    return bytes.fromhex(part["hex"]) if isinstance(part, dict) else part
