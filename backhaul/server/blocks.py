"""Ledger of server_block: the numbers that were handed out to replicas, for keys that they make up while apart.

A block lies above every block before it and above every integer key that the scope has for the table, so no two
replicas ever hold one number. What the scope has is looked at once: a block remembers the feed position that it was
made at, and the next one looks at what has changed since. Of each replica only the latest block is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, text

from backhaul.server import scopes
from backhaul.wire import Block, Wanted, encode

MOST = 100_000  # numbers of one block
FORGOTTEN = 10 * MOST  # numbers that a server that was put back may have given out and not know of
LAST = 2**63 - 1


def give(connection: Connection, scope: str, replica: str, wanted: Mapping[str, Wanted], now: int) -> list[Block]:
    """A block for each table that is wanted: those whose keys are made up. Left out are those whose numbers are used
    up."""
    position = scopes.lock(connection, scope)
    names = sorted(wanted)
    if not names:
        return []
    highest = _highest(connection, scope, names)
    given: list[Block] = []
    for name in names:
        above = max(highest.get(name, 0), wanted[name].above)
        count = min(wanted[name].count, MOST)
        if above <= LAST - count:
            given.append(Block(table=name, first=above + 1, last=above + count))
    _keep(connection, scope, replica, given, position=position, now=now)
    return given


def leap(connection: Connection, scope: str) -> None:
    """The server was put back to an older state, and has forgotten numbers that it gave out: leave a gap behind those
    that it knows of."""
    statement = "UPDATE server_block SET last = last + :gap WHERE scope = :scope AND last < :most - :gap"
    connection.execute(text(statement), {"scope": scope, "gap": FORGOTTEN, "most": LAST})


def any_of(connection: Connection, scope: str, table: str) -> bool:
    statement = "SELECT EXISTS (SELECT 1 FROM server_block WHERE scope = :scope AND table_name = :table)"
    return bool(connection.execute(text(statement), {"scope": scope, "table": table}).scalar_one())


def retable(connection: Connection, scope: str, old: str, new: str) -> None:
    """The table has another name. There are no blocks under both."""
    statement = "UPDATE server_block SET table_name = :new WHERE scope = :scope AND table_name = :old"
    connection.execute(text(statement), {"scope": scope, "old": old, "new": new})


def _highest(connection: Connection, scope: str, names: list[str]) -> dict[str, int]:
    """For each table the highest number that was given out, or that a record has."""
    latest = """
        SELECT table_name, max(last) AS last, max(position) AS position
        FROM server_block WHERE scope = :scope GROUP BY table_name
    """
    known = {
        row.table_name: row for row in connection.execute(text(latest), {"scope": scope}) if row.table_name in names
    }
    since = min((known[name].position if name in known else 0) for name in names)
    values = {"scope": scope, "since": since, "names": encode(names).decode()}
    statement = _KEYS_POSTGRESQL if connection.dialect.name == "postgresql" else _KEYS_SQLITE
    highest = {name: int(row.last) for name, row in known.items()}
    for name, key in connection.execute(text(statement), values):
        highest[name] = max(highest.get(name, 0), int(key or 0))
    return highest


# The plus keeps SQLite on the index of the feed: the other one would lead through every record of the table.
_KEYS_SQLITE = """
    SELECT table_name, max(json_extract(key, '$[0]'))
    FROM server_record
    WHERE scope = :scope AND version > :since AND +table_name IN (SELECT value FROM json_each(:names))
      AND json_type(key, '$[0]') = 'integer'
    GROUP BY table_name
"""
_KEYS_POSTGRESQL = r"""
    SELECT table_name, max(CAST(substring(key FROM '^\[(-?[0-9]+)\]$') AS numeric))
    FROM server_record
    WHERE scope = :scope AND version > :since
      AND table_name IN (SELECT json_array_elements_text(CAST(:names AS json)))
    GROUP BY table_name
"""


def _keep(connection: Connection, scope: str, replica: str, given: list[Block], *, position: int, now: int) -> None:
    statement = """
        INSERT INTO server_block (scope, table_name, replica, first, last, position, given_at)
        VALUES (:scope, :table, :replica, :first, :last, :position, :now)
        ON CONFLICT (scope, table_name, replica) DO UPDATE
        SET first = excluded.first, last = excluded.last, position = excluded.position, given_at = excluded.given_at
    """
    rows: list[dict[str, Any]] = [
        {"scope": scope, "replica": replica, "position": position, "now": now, **msgspec.structs.asdict(block)}
        for block in given
    ]
    if rows:
        connection.execute(text(statement), rows)
