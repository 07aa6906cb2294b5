"""The conditions in force on a node, from all that says something of it, and the node's labels."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection

from backhaul.bell import Node
from backhaul.remotes import traffic
from backhaul.remotes.traffic import Spent
from backhaul.work.budget import is_counted, with_budget
from backhaul.work.conditions import Condition, effective, overrides, said_and_read
from backhaul.work.quiet import quiet_reading
from backhaul.work.reading import Readings


def in_force(
    connection: Connection,
    now: int,
    node: Node,
    environment: Mapping[str, str],
    *,
    readings: Readings | None = None,
    worker_name: str = "",
) -> tuple[Mapping[str, Condition], frozenset[str]]:
    """One statement, and one more for the bytes that were spent, where a budget is set and the link is metered.

    readings: None takes those that the node's workers have left in the database, and of these the ones of this worker,
    if it is given and was heard of.
    """
    if readings is None:
        said, readings = said_and_read(connection, now, node.name, worker_name)
    else:
        said = overrides(connection, now, node.name)
    held = holding(said, readings, now, node, environment)
    if is_counted(node, held):
        held = with_budget(held, node, traffic.spent(connection, node.name, traffic.local_day(now)), now)
    return held, node.labels


def holding(
    said: Mapping[str, Condition],
    readings: Readings,
    now: int,
    node: Node,
    environment: Mapping[str, str],
    spent: Spent | None = None,
) -> dict[str, Condition]:
    """From memory. said, spent: what the database said when it was last asked (`overrides`, `traffic.spent`)."""
    quiet = quiet_reading(node.quiet_hours, now)
    read = {**readings, quiet.name: quiet} if quiet is not None else readings
    lasting = {name: one for name, one in said.items() if one.expires_at is None or one.expires_at > now}
    held = effective(node.conditions, environment, lasting, readings=read, unknown=node.unknown, now=now)
    return held if spent is None else with_budget(held, node, spent, now)
