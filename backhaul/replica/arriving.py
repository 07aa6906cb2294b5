"""Who is told that sync is about to write into the app's tables: work may wait for that (work/changes.py).

Told in the transaction that does it, before anything of the outbox is forgotten in it: a change of the app's own does
not come back with the feed, and after that nobody could see it any more.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

Arriving = Callable[[Connection, frozenset[str]], object]


def untold(_connection: Connection, _tables: frozenset[str]) -> None:
    """Where no work can wait."""
