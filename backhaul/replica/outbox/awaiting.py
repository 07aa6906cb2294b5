"""-> held -> pending: what is not to be sent before the server has a file, and what depends on that.

What is held was never sent. It comes back at the end of the queue as the op that it was, with the time that it was
captured at: a later claim looks at it as at any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from backhaul.replica.outbox.claiming import op_ids
from backhaul.statements import text

AWAITS = "awaits-media"
DEPENDS = "depends-on-held"
WAITING = """
    SELECT 1 FROM backhaul_attachment AS named
    WHERE named.together = 1 AND named.table_name = change.table_name AND named.key = change.key
"""


def any_held(connection: Connection) -> bool:
    statement = "SELECT EXISTS (SELECT 1 FROM backhaul_outbox WHERE state = 'held')"
    return bool(connection.execute(text(statement)).scalar_one())


def awaiting(connection: Connection, *, first: int, last: int) -> dict[int, str]:
    """The pending changes between two outbox ids whose record is to become visible with a file that the server does
    not have: id -> detail."""
    statement = f"""
        SELECT change.id FROM backhaul_outbox AS change
        WHERE change.state = 'pending' AND change.id BETWEEN :first AND :last AND EXISTS ({WAITING})
    """  # noqa: S608 - constants
    found = connection.execute(text(statement), {"first": first, "last": last}).scalars()
    return dict.fromkeys(found, "it becomes visible to others with its file, which is not on the server yet")


def hold_back(connection: Connection, found: Mapping[int, str], *, reason: str) -> None:
    """pending -> held. found: id -> detail."""
    statement = """
        UPDATE backhaul_outbox SET state = 'held', op_id = :op_id, reason = :reason, detail = :detail
        WHERE id = :id AND state = 'pending'
    """
    known_as = op_ids(connection, list(found))
    rows = [{"id": one, "op_id": op_id, "reason": reason, "detail": found[one]} for one, op_id in known_as.items()]
    if rows:
        connection.execute(text(statement), rows)


def held(connection: Connection) -> list[Mapping[str, Any]]:
    """Every held change, oldest first, as far as is needed to tell what hangs together."""
    statement = """
        SELECT id, op_id, group_id, table_name, key, reason, detail FROM backhaul_outbox WHERE state = 'held'
        ORDER BY id
    """
    return [dict(row) for row in connection.execute(text(statement)).mappings()]


def free(connection: Connection) -> list[int]:
    """The held changes that waited for a file and need not any more, unless another of their group still waits."""
    statement = f"""
        SELECT change.id FROM backhaul_outbox AS change
        WHERE change.state = 'held' AND change.reason = '{AWAITS}' AND NOT EXISTS ({WAITING})
          AND (change.group_id IS NULL OR change.group_id NOT IN (
              SELECT change.group_id FROM backhaul_outbox AS change
              WHERE change.state = 'held' AND change.group_id IS NOT NULL AND EXISTS ({WAITING})))
    """  # noqa: S608 - constants
    return list(connection.execute(text(statement)).scalars())
