"""A host's desk: its database and engine, `works` as `Backhaul(engine).work` has it, a clock to move, and a worker that
runs what is due in the test's own thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine

from backhaul.bell import Queue, Ring, SilentBell
from backhaul.database import Database
from backhaul.replica.hook import Hook
from backhaul.work import OneTimeWork, PeriodicWork, Result, Work, conditions, ledger, run
from backhaul.work.context import Context
from backhaul.work.run import Settled
from backhaul.work.works import Works

MINUTE = 60_000
HOUR = 60 * MINUTE
QUEUES = (
    Queue(name="sync", tags=frozenset({"connected"})),
    Queue(
        name="media",
        tags=frozenset({"connected", "unmetered", "charging", "storage_not_low", "battery_not_low", "device_idle"}),
    ),
    Queue(name="abroad", tags=frozenset({"connected", "metered", "not_roaming", "region:eu"})),
    Queue(name="first", tags=frozenset({"connected"}), expedited=True),
)
Body = Callable[[Context], Any]


class RecordingBell(SilentBell):
    def __init__(self, queues: Sequence[Queue] = QUEUES, known: frozenset[str] | None = None) -> None:
        super().__init__(queues)
        self.rung: list[Ring] = []
        self.known = known
        self.imported = 0

    def ring(self, ring: Ring) -> None:
        self.rung.append(ring)

    def workers(self, *, importing: bool) -> frozenset[str] | None:
        self.imported += importing
        return self.known if importing else None


def done(context: Context) -> Result:
    return Result.success()


def failing(context: Context) -> Result:
    return Result.failure({"partly": True}, reason="it cannot be done")


def again(context: Context) -> Result:
    return Result.retry(reason="not yet")


@dataclass
class Desk:
    database: Database
    engine: Engine
    clock: Any
    bell: RecordingBell = field(default_factory=RecordingBell)

    def __post_init__(self) -> None:
        self.hook = Hook(self.engine, lambda: None)
        self.works = Works(self.database, self.bell, self.clock, self.hook.after_commit)
        self.ran: list[str] = []

    @property
    def now(self) -> int:
        return int(self.clock.now())

    def row(self, work: str | OneTimeWork | PeriodicWork) -> Work:
        found = self.works.get(work if isinstance(work, str) else work.id)
        assert found is not None
        return found

    def state(self, work: str | OneTimeWork | PeriodicWork) -> str:
        return self.row(work).state

    def due(self) -> list[Work]:
        with self.database.reading() as connection:
            return ledger.due(connection, self.now, ring_again_ms=0, limit=100)

    def claim(
        self,
        work: str | OneTimeWork | PeriodicWork,
        *,
        lease_ms: int = MINUTE,
        node: str = "",
        process: int | None = None,
    ) -> Work:
        row = self.row(work)
        with self.database.writing() as connection:
            claimed = ledger.claim(
                connection,
                row.id,
                row.generation,
                worker="w1",
                now=self.now,
                lease_ms=lease_ms,
                node=node,
                process=process,
            )
        assert claimed is not None
        return claimed

    def settle(self, verb: Callable[..., Any], work: Work, **said: Any) -> Work:
        with self.database.writing() as connection:
            settled: Work = verb(connection, work, now=self.now, **said)
            return settled

    def run(
        self,
        work: str | OneTimeWork | PeriodicWork,
        body: Body = done,
        *,
        generation: int | None = None,
        process: int | None = None,
        ending: Callable[[], bool] = lambda: False,
    ) -> Settled:
        """Deliver a message for this work to a worker."""
        row = self.row(work)

        def counted(context: Context) -> Any:
            self.ran.append(row.id)
            return body(context)

        return run.run(
            self.database,
            row.id,
            row.generation if generation is None else generation,
            worker="w1",
            queue=row.queue,
            conditions=self._conditions,
            clock=self.clock,
            body=counted,
            process=process,
            ending=ending,
        )

    def run_due(self, body: Body = done) -> list[str]:
        """Run all that is due now, once each; the ids."""
        works = self.due()
        for work in works:
            self.run(work.id, body)
        return [work.id for work in works]

    def switch(self, name: str, value: bool) -> None:
        with self.database.writing() as connection:
            conditions.set_condition(connection, name, value, now=self.now)

    def close(self) -> None:
        self.hook.remove()
        self.engine.dispose()

    def _conditions(self, connection: Any, now: int) -> Any:
        return conditions.effective({}, os.environ, conditions.overrides(connection, now)), frozenset()
