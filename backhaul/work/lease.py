"""Leases: who may do, for a while, what only one may do (leading the beats). Owner of backhaul_lease.

A lease that is not renewed passes by itself. The fence moves whenever the holder changes, or comes back too late.
"""

from __future__ import annotations

from sqlalchemy import Connection, case, not_, or_, select, update

from backhaul.schema import lease
from backhaul.statements import insert


def take(connection: Connection, name: str, owner: str, *, now: int, ms: int) -> bool:
    """Take the lease, or renew it, until `now + ms`. False when another holds it."""
    statement = insert(connection, lease).values(name=name, owner=owner, fence=1, until=now + ms)
    held = (lease.c.owner == statement.excluded.owner) & (lease.c.until > now)
    taken = connection.execute(
        statement.on_conflict_do_update(
            index_elements=[lease.c.name],
            set_={
                "owner": statement.excluded.owner,
                "fence": case((held, lease.c.fence), else_=lease.c.fence + 1),
                "until": statement.excluded.until,
            },
            # One that lasts ten times as long as it may was taken while the clock was ahead.
            where=or_(lease.c.owner == statement.excluded.owner, not_(lease.c.until.between(now + 1, now + 10 * ms))),
        ).returning(lease.c.fence)
    )
    return taken.one_or_none() is not None


def release(connection: Connection, name: str, owner: str) -> bool:
    """Give the lease back before its time. The row stays, for the sake of its fence."""
    given = update(lease).where(lease.c.name == name, lease.c.owner == owner).values(until=0).returning(lease.c.name)
    return connection.execute(given).one_or_none() is not None


def holder(connection: Connection, name: str, now: int) -> str | None:
    """Who holds the lease just now; None when nobody does."""
    return connection.scalar(select(lease.c.owner).where(lease.c.name == name, lease.c.until > now))
