"""What a run takes along of its own kind, for a function that does many at once as fast as one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection

from backhaul.work import ledger
from backhaul.work.context import Context
from backhaul.work.ledger import Work

LEASE_MS = 90_000  # longer than the longest exchange: nobody renews it


class Beside:
    """Works that wait beside the run's own, by id. Each method acts in the caller's transaction."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._claimed: dict[str, Work] = {}

    def claim(self, connection: Connection, ids: Collection[str]) -> list[str]:
        """Those of them that can be run here and now, and are this run's then."""
        now = self._context.clock.now()
        claimed = ledger.claim_beside(connection, self._context.work, ids, now=now, lease_ms=LEASE_MS)
        self._claimed |= {work.id: work for work in claimed}
        return [work.id for work in claimed]

    def succeed(self, connection: Connection, outputs: Mapping[str, Mapping[str, Any]]) -> None:
        """They are done, each with its output; what is no longer this run's stays as it is."""
        works = [(self._claimed[work_id], output) for work_id, output in outputs.items()]
        ledger.succeed_beside(connection, works, now=self._context.clock.now())

    def give_back(self, connection: Connection, ids: Collection[str]) -> None:
        """They wait as before, and were not tried."""
        ledger.give_back(connection, [self._claimed[work_id] for work_id in ids])
