"""What this machine is, its labels, and what it may do just now, its conditions."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from sqlalchemy import Connection

from backhaul.bell import Node
from backhaul.work.conditions import Condition
from backhaul.work.context import Conditions
from backhaul.work.in_force import in_force
from backhaul.work.reading import Readings
from config.settings import Settings


def conditions_of(
    settings: Settings, readings: Callable[[], Readings] | None = None, *, worker_name: str = ""
) -> Conditions:
    """What holds on this node, asked anew each time.

    readings: of the probes, in the process that has them, a worker's main process. Everywhere else they come from the
    database, where that worker has left them: from the worker of this name, else from whoever is alive on the node.
    """
    node = node_of(settings)

    def now_in_force(connection: Connection, now: int) -> tuple[Mapping[str, Condition], frozenset[str]]:
        read = None if readings is None else readings()
        return in_force(connection, now, node, os.environ, readings=read, worker_name=worker_name)

    return now_in_force


def node_of(settings: Settings) -> Node:
    return Node(
        name=settings.node,
        labels=frozenset(settings.labels),
        conditions=settings.conditions,
        unknown=settings.unknown,
        quiet_hours=settings.quiet.hours,
        budget=settings.budget.limits,
    )
