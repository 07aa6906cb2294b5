"""Which replicas one was before, and what it knows of what they wrote: `known` in `server_replica`. Once a replica is
there, only this file changes that.

A successor says once, when it becomes one, which versions its database had written itself. What it sends once more and
the server recognises comes to that: it waited in the backup, so it is known, too. What else the former self wrote is
another's to it: the other copy's, or its own after the backup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import Connection

from backhaul.merge import Lineage
from backhaul.statements import members, text
from backhaul.wire import Versions, encode

_known = msgspec.json.Decoder(dict[str, Versions]).decode


def ancestors(connection: Connection, replica: str) -> list[str]:
    """The replica, and those that it was before."""
    statement = """
        WITH RECURSIVE line (replica, predecessor) AS (
            SELECT replica, predecessor FROM server_replica WHERE replica = :replica
            UNION
            SELECT before.replica, before.predecessor
            FROM server_replica AS before JOIN line ON before.replica = line.predecessor
        )
        SELECT replica FROM line
    """
    return list(connection.execute(text(statement), {"replica": replica}).scalars())


def successors(connection: Connection, replicas: Sequence[str]) -> list[str]:
    """Those that came of these replicas, and of those."""
    statement = f"""
        WITH RECURSIVE line (replica) AS (
            SELECT replica FROM server_replica WHERE predecessor IN ({members(connection, "replicas")})
            UNION
            SELECT after.replica FROM server_replica AS after JOIN line ON after.predecessor = line.replica
        )
        SELECT replica FROM line
    """  # noqa: S608 - the parts are constants
    return list(connection.execute(text(statement), {"replicas": encode(list(replicas)).decode()}).scalars())


def of_successor(connection: Connection, was: str, knows: Versions) -> str:
    """What the successor of this replica knows, as it is stored. knows: what its database has written itself. Of those
    before, it knows what this replica knew."""
    if not was:
        return "{}"
    statement = "SELECT known FROM server_replica WHERE replica = :replica"
    before = _known(connection.execute(text(statement), {"replica": was}).scalar_one())
    return encode({**before, was: list(knows)}).decode()


def read(known: str) -> Lineage:
    return Lineage(_known(known))


def learn(connection: Connection, replica: str, before: Lineage, versions: Iterable[int]) -> Lineage:
    """These versions were recognised as ones that the replica had written."""
    after = before.knowing(versions)
    if after is not before:
        statement = "UPDATE server_replica SET known = :known WHERE replica = :replica"
        connection.execute(text(statement), {"replica": replica, "known": encode(after.known).decode()})
    return after
