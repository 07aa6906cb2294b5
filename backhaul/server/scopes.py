"""Scopes and their counters: the only file that writes `server_scope` and `server_commit`.

The counter moves in the transaction that writes the records, with the scope's row locked: so the order of the feed is
the order of the commits, and a reader that has seen position n has seen everything before n.

Each position at which a push ended has a random nonce. Cursors name it: so a server that was put back to a backup, and
has come to the same position in another way, notices it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from sqlalchemy import Connection

from backhaul.errors import DatabaseBusy
from backhaul.statements import text


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where a feed stands. horizon, collected: see schema.py."""

    feed: str
    position: int
    nonce: str
    horizon: int
    collected: int


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


def advance(connection: Connection, scope: str, *, since: int, to: int, hlc: int = 0, now: int) -> None:
    """hlc: the highest stamp that was taken."""
    statement = """
        UPDATE server_scope
        SET position = :to, hlc = CASE WHEN :hlc > hlc THEN :hlc ELSE hlc END
        WHERE name = :scope AND position = :since
    """
    moved = connection.execute(text(statement), {"scope": scope, "since": since, "to": to, "hlc": hlc})
    if moved.rowcount != 1:
        raise DatabaseBusy("two pushes to one scope at once", hint="try again")
    if to > since:
        _commit(connection, scope, to, now)


def head(connection: Connection, scope: str) -> Head:
    statement = """
        SELECT feed, position, horizon, collected,
               (SELECT nonce FROM server_commit
                WHERE server_commit.scope = name AND server_commit.position = server_scope.position) AS nonce
        FROM server_scope WHERE name = :scope
    """
    row = connection.execute(text(statement), {"scope": scope}).one()
    return Head(
        feed=row.feed,
        position=row.position,
        nonce=row.nonce or "",
        horizon=row.horizon,
        collected=row.collected,
    )


def nonce_at(connection: Connection, scope: str, position: int) -> str:
    """ "" where no push has ended, as at the beginning."""
    statement = "SELECT nonce FROM server_commit WHERE scope = :scope AND position = :position"
    return connection.execute(text(statement), {"scope": scope, "position": position}).scalar() or ""


def common(connection: Connection, scope: str, *, before: int, until: int) -> tuple[int, str]:
    """The last position before this one that was committed until then, with its nonce."""
    statement = """
        SELECT position, nonce FROM server_commit
        WHERE scope = :scope AND position < :before AND committed_at <= :until
        ORDER BY position DESC LIMIT 1
    """
    row = connection.execute(text(statement), {"scope": scope, "before": before, "until": until}).one_or_none()
    return (0, "") if row is None else (row.position, row.nonce)


def first_after(connection: Connection, scope: str, position: int, *, otherwise: int) -> int:
    """When the first of the commits after this position was made."""
    statement = "SELECT min(committed_at) FROM server_commit WHERE scope = :scope AND position > :position"
    found = connection.execute(text(statement), {"scope": scope, "position": position}).scalar()
    return otherwise if found is None else int(found)


def names(connection: Connection) -> list[str]:
    return list(connection.execute(text("SELECT name FROM server_scope ORDER BY name")).scalars())


def position_at(connection: Connection, scope: str, moment: int) -> int:
    """The last position that was committed before this moment: who has not got further has been away since."""
    statement = "SELECT max(position) FROM server_commit WHERE scope = :scope AND committed_at < :moment"
    return connection.execute(text(statement), {"scope": scope, "moment": moment}).scalar() or 0


def forget_before(connection: Connection, scope: str, *, horizon: int, collected: int) -> None:
    """Cursors from before the horizon, or from before the last tombstone that was collected, are of no use any more."""
    statement = """
        UPDATE server_scope
        SET horizon = CASE WHEN :horizon > horizon THEN :horizon ELSE horizon END,
            collected = CASE WHEN :collected > collected THEN :collected ELSE collected END
        WHERE name = :scope
    """
    connection.execute(text(statement), {"scope": scope, "horizon": horizon, "collected": collected})
    forget = "DELETE FROM server_commit WHERE scope = :scope AND position < :horizon"
    connection.execute(text(forget), {"scope": scope, "horizon": horizon})


def _commit(connection: Connection, scope: str, position: int, now: int) -> None:
    statement = """
        INSERT INTO server_commit (scope, position, nonce, committed_at)
        VALUES (:scope, :position, :nonce, :now)
    """
    values = {"scope": scope, "position": position, "nonce": secrets.token_hex(8), "now": now}
    connection.execute(text(statement), values)
