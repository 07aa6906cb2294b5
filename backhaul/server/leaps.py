"""Where a feed has leapt, because the server was put back to a backup: the only file that writes `server_leap`.

Positions that may have been given out before are leapt over, so that none means two things from then on. Those between
the backup and the leap mean two things all the same, for whoever has not heard of it: they were given out in the past
that is lost, and once more since. A leap remembers both ends, and when the feed went on from the backup: so a cursor,
or what an app is said to have seen, is known to be of the lost past long after the nonces of that time are forgotten.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text

from backhaul.server import scopes

LEAP = 2**31  # over every position that may have been given out before the server was put back
HARDLY = 2**30  # less than this ahead of one of them: not leapt yet


class Leap(NamedTuple):
    """common: the last position that both pasts have. since, position: from where to where. resumed_at: when the first
    position after the common one was given out anew."""

    common: int
    since: int
    position: int
    resumed_at: int


def leap(connection: Connection, scope: str, *, over: int, common: int, now: int) -> bool:
    """The server was put back to an older state, and positions up to about `over` were given out before: the feed goes
    on far behind them. False when it has done so already."""
    since = scopes.lock(connection, scope)
    if since >= over + HARDLY:
        return False
    made = Leap(common, since, over + LEAP, scopes.first_after(connection, scope, common, otherwise=now))
    scopes.advance(connection, scope, since=since, to=made.position, now=now)
    statement = """
        INSERT INTO server_leap (scope, common, since, position, resumed_at)
        VALUES (:scope, :common, :since, :position, :resumed_at)
    """
    connection.execute(text(statement), {"scope": scope, **made._asdict()})
    return True


def all_of(connection: Connection, scope: str, position: int) -> tuple[Leap, ...]:
    """The leaps of a scope that has come to this position: most never do."""
    if position < LEAP:
        return ()
    statement = "SELECT common, since, position, resumed_at FROM server_leap WHERE scope = :scope ORDER BY position"
    return tuple(Leap(*row) for row in connection.execute(text(statement), {"scope": scope}))


def lost_from(leaps: tuple[Leap, ...], position: int, at: int) -> int | None:
    """If who was at this position then was so in a past that the server has lost: the position of the backup."""
    found = (one.common for one in leaps if one.common < position < one.position and at <= one.resumed_at)
    return min(found, default=None)


def was_never(leaps: tuple[Leap, ...], position: int) -> bool:
    """Whether this position can only be of a lost past."""
    return any(one.since < position < one.position for one in leaps)


def may_be_lost(leaps: tuple[Leap, ...], position: int, heard: int) -> bool:
    """Whether the position may be of a lost past, for all that is known of a replica that has named a cursor of ours at
    `heard`, as it was noted since the server was put back, or before the backup."""
    return any(heard <= one.common < position < one.position for one in leaps)
