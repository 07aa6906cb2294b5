"""How far each replica has pulled, and what the server may forget for that: tombstones that everyone has heard of.

Owner of `position` and `pulled_at` in `server_replica`. What stands there may lag behind, never run ahead: it is what a
replica has named as its own cursor, so it has applied everything up to there.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from backhaul.errors import Unknown
from backhaul.merge import ALONE, Lineage
from backhaul.server import leaps, lineage, records, scopes
from backhaul.server.auth import Replica
from backhaul.server.leaps import Leap
from backhaul.server.problems import refusal
from backhaul.statements import text

HORIZON_MS = 90 * 86_400_000  # after so long without a pull a replica has to begin anew
MOST_DRIFT_MS = 60_000  # a stamp further ahead of our clock would win against every honest one for that long
YOUNGEST_MS = 86_400_000  # a tombstone stays for a day, whoever has heard of it: a first round may be under way


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a push is held against. hlc: the highest stamp that the scope took. collected: see schema.py. lineage: whom
    the replica was before. leaps: of the scope. heard: how far the replica is known to have pulled. succeeded_at: when
    the last other one came of it; 0: none did. renumbered: whether it has sent something under other numbers anew."""

    hlc: int
    collected: int
    lineage: Lineage = ALONE
    leaps: tuple[Leap, ...] = ()
    heard: int = 0
    succeeded_at: int = 0
    renumbered: bool = False


def of_scope(connection: Connection, scope: str) -> Standing:
    """What the server's own writes are held against. Raises Unknown."""
    statement = "SELECT hlc, collected FROM server_scope WHERE name = :scope"
    row = connection.execute(text(statement), {"scope": scope}).one_or_none()
    if row is None:
        raise Unknown(f"there is no scope {scope!r}", hint="a scope is made by its first replica")
    return Standing(hlc=row.hlc, collected=row.collected)


def standing(connection: Connection, replica: Replica) -> Standing:
    """Raises Refused `cursor-expired` to a replica that comes too late: it has to hear first what is gone."""
    statement = """
        SELECT server_replica.position, server_scope.position AS head, hlc, collected, horizon, known,
               (SELECT max(created_at) FROM server_replica AS after WHERE after.predecessor = :replica) AS succeeded_at,
               EXISTS (SELECT 1 FROM server_applied WHERE replica = :replica AND former = 1) AS renumbered
        FROM server_replica JOIN server_scope ON server_scope.name = server_replica.scope
        WHERE server_replica.replica = :replica
    """
    row = connection.execute(text(statement), {"replica": replica.id}).one()
    if row.position is not None and row.position < max(row.collected, row.horizon):
        raise refusal("cursor-expired", "this replica was away so long that deletions are forgotten: pull first")
    return Standing(
        hlc=row.hlc,
        collected=row.collected,
        lineage=lineage.read(row.known),
        leaps=leaps.all_of(connection, replica.scope, row.head),
        heard=row.position or 0,
        succeeded_at=row.succeeded_at or 0,
        renumbered=bool(row.renumbered),
    )


def heard(connection: Connection, replica: str, position: int, now: int) -> None:
    """The replica has everything up to this position."""
    statement = "UPDATE server_replica SET position = :position, pulled_at = :now WHERE replica = :replica"
    connection.execute(text(statement), {"replica": replica, "position": position, "now": now})


def collect(connection: Connection, scope: str, *, now: int, horizon_ms: int) -> int:
    """Forget the tombstones that every replica has heard of, or that are older than the horizon; returns how many."""
    scopes.lock(connection, scope)
    horizon = scopes.position_at(connection, scope, now - horizon_ms)
    young = scopes.position_at(connection, scope, now - min(YOUNGEST_MS, horizon_ms))
    upto = max(horizon, min(young, _heard_by_all(connection, scope, horizon, young)))
    forgotten, last = records.forget_tombstones(connection, scope, upto)
    scopes.forget_before(connection, scope, horizon=horizon, collected=last)
    return forgotten


def _heard_by_all(connection: Connection, scope: str, horizon: int, otherwise: int) -> int:
    """Without those that come too late anyway, and those that have not pulled yet: they begin anew."""
    statement = """
        SELECT min(position) FROM server_replica
        WHERE scope = :scope AND revoked_at IS NULL AND position >= :horizon
    """
    least = connection.execute(text(statement), {"scope": scope, "horizon": horizon}).scalar()
    return otherwise if least is None else int(least)
