"""Scopes and their counters: the only file that writes `server_scope`.

The counter moves in the transaction that writes the records, with the scope's row locked: so the order of the feed is
the order of the commits, and a reader that has seen position n has seen everything before n.
"""

from __future__ import annotations

import secrets

from sqlalchemy import Connection, text

from backhaul.errors import DatabaseBusy


def make(connection: Connection, scope: str) -> None:
    """The scope, unless it is there. feed: random, so that a cursor of a feed that is gone is known as such."""
    statement = """
        INSERT INTO server_scope (name, position, feed)
        VALUES (:scope, 0, :feed)
        ON CONFLICT (name) DO NOTHING
    """
    connection.execute(text(statement), {"scope": scope, "feed": secrets.token_hex(8)})


def lock(connection: Connection, scope: str) -> int:
    """The position, held until the transaction ends: one push at a time in a scope."""
    statement = "SELECT position FROM server_scope WHERE name = :scope"
    if connection.dialect.name == "postgresql":
        statement += " FOR UPDATE"  # SQLite's BEGIN IMMEDIATE has locked everything already
    return int(connection.execute(text(statement), {"scope": scope}).scalar_one())


def advance(connection: Connection, scope: str, *, since: int, to: int) -> None:
    statement = "UPDATE server_scope SET position = :to WHERE name = :scope AND position = :since"
    moved = connection.execute(text(statement), {"scope": scope, "since": since, "to": to})
    if moved.rowcount != 1:
        raise DatabaseBusy("two pushes to one scope at once", hint="try again")


def head(connection: Connection, scope: str) -> tuple[str, int]:
    """The feed's id and its last position."""
    statement = "SELECT feed, position FROM server_scope WHERE name = :scope"
    row = connection.execute(text(statement), {"scope": scope}).one()
    return row.feed, row.position
