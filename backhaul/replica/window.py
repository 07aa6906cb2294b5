"""Which pending changes a claim takes on PostgreSQL, where many transactions write into the outbox at once.

Their ids interleave, and a lower id may be committed later than a higher one; so there is no id up to which nothing
more can come, and a transaction's changes do not stand together. What holds is: a transaction's changes become visible
all at once; and of two that wrote one record, the later one got its ids after the earlier had committed, because it
waited for the record. So take the first n pending changes, by id. A group of theirs with no pending change beyond the
last of them is whole; the whole ones go, in the order of their highest ids, and with them goes everything that they
could depend on. A group that is cut is left for a later claim; where all are, twice as many are looked at.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from sqlalchemy import Connection, Row, text

WINDOW = """
    WITH first AS MATERIALIZED (
        SELECT id, group_id FROM backhaul_outbox WHERE state = 'pending' ORDER BY id LIMIT :limit
    ), edge AS (
        SELECT max(id) AS last FROM first
    ), cut AS MATERIALIZED (
        SELECT group_id FROM (SELECT DISTINCT group_id FROM first WHERE group_id IS NOT NULL) AS known, edge
        WHERE EXISTS (SELECT 1 FROM backhaul_outbox AS beyond
                      WHERE beyond.group_id = known.group_id AND beyond.state = 'pending' AND beyond.id > edge.last)
    ), whole AS (
        SELECT id, max(id) OVER (PARTITION BY group_id IS NULL, coalesce(group_id, CAST(id AS text))) AS place
        FROM first WHERE group_id IS NULL OR group_id NOT IN (SELECT group_id FROM cut)
    )
"""


def whole_groups(connection: Connection, changes: str, limit: int) -> Generator[Row[Any], None, None]:
    """The rows of whole groups, each group together. changes: the SELECT of the columns that are wanted. Empty only
    when nothing is pending."""
    statement = text(f"{WINDOW} {changes} JOIN whole USING (id) ORDER BY place, id")  # one statement sees one moment
    found = False
    while not found:
        with connection.execute(statement.execution_options(stream_results=True), {"limit": limit}) as result:
            for row in result:
                found = True
                yield row
        if not found and not _any_pending(connection, beyond=limit):
            return
        limit *= 2


def _any_pending(connection: Connection, *, beyond: int) -> bool:
    """Whether there are more than so many."""
    statement = "SELECT EXISTS (SELECT 1 FROM backhaul_outbox WHERE state = 'pending' OFFSET :beyond)"
    return bool(connection.execute(text(statement), {"beyond": beyond}).scalar_one())
