"""Who counts a node's bytes, and on which links."""

from __future__ import annotations

import os

from sqlalchemy import Connection

from backhaul.bell import Node
from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.remotes.traffic import Meter
from backhaul.work.budget import network_of
from backhaul.work.in_force import in_force


def meter_of(database: Database, clock: Clock, node: Node) -> Meter | None:
    """What counts for this node; None where no budget is set."""
    if not node.budget:
        return None

    def network(connection: Connection, now: int) -> str | None:
        return network_of(in_force(connection, now, node, os.environ)[0])

    return Meter(database, clock, node=node.name, network=network)
