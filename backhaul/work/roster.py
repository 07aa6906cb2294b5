"""The worker processes that were seen lately, and what they serve. Owner of backhaul_worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, case, delete, select

from backhaul.schema import worker
from backhaul.statements import insert

MOST_SKEW_MS = 120_000  # who was heard of later than that was heard of while the clock was ahead


@dataclass(frozen=True, kw_only=True)
class QueueState:
    """A queue as one worker serves it. reason: why it is closed; empty when open. since: milliseconds."""

    name: str
    open: bool
    reason: str = ""
    since: int = 0


@dataclass(frozen=True, kw_only=True)
class Worker:
    name: str
    pid: int
    started_at: int
    seen_at: int
    queues: tuple[QueueState, ...]

    def serves(self, queue: str) -> QueueState | None:
        return next((state for state in self.queues if state.name == queue), None)


_states = msgspec.json.Decoder(tuple[QueueState, ...])


def beat(connection: Connection, *, name: str, pid: int, queues: Sequence[QueueState], now: int) -> None:
    """Say that a worker is alive, and what it serves. The same name with another pid is a worker started again."""
    statement = insert(connection, worker).values(
        name=name, pid=pid, started_at=now, seen_at=now, queues=msgspec.json.encode(list(queues)).decode()
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[worker.c.name],
            set_={
                "pid": statement.excluded.pid,
                "started_at": case(
                    (worker.c.pid == statement.excluded.pid, worker.c.started_at), else_=statement.excluded.started_at
                ),
                "seen_at": statement.excluded.seen_at,
                "queues": statement.excluded.queues,
            },
        )
    )


def leave(connection: Connection, name: str) -> None:
    connection.execute(delete(worker).where(worker.c.name == name))


def alive(connection: Connection, now: int, within_ms: int) -> list[Worker]:
    """The workers that were heard of within so many milliseconds, by name."""
    rows = connection.execute(
        select(worker).where(worker.c.seen_at.between(now - within_ms, now + MOST_SKEW_MS)).order_by(worker.c.name)
    )
    return [
        Worker(
            name=row.name,
            pid=row.pid,
            started_at=row.started_at,
            seen_at=row.seen_at,
            queues=_states.decode(row.queues),
        )
        for row in rows
    ]


def forget_gone(connection: Connection, *, now: int, older_than_ms: int) -> int:
    """Drop the workers that were not heard of for so long; returns how many."""
    gone = delete(worker).where(worker.c.seen_at < now - older_than_ms).returning(worker.c.name)
    return len(connection.execute(gone).all())
