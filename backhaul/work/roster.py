"""The worker processes that were seen lately, what they serve, and what they see of their node. Owner of
backhaul_worker."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, delete, select, update

from backhaul.schema import worker
from backhaul.statements import run
from backhaul.work.conditions import Condition
from backhaul.work.reading import Reading, Readings, decode_readings, encode_readings

ALIVE_MS = 15_000  # a worker says every five seconds that it is there
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
    """concurrency: how much it runs at once, if that is known. processes: the pids of those that run its work, if they
    are known. misrouted: messages that it has handed back, since it
    started, because they were not for it. readings, conditions: as it saw them at `seen_at`. Milliseconds."""

    name: str
    pid: int
    started_at: int
    seen_at: int
    queues: tuple[QueueState, ...]
    node: str = ""
    labels: frozenset[str] = frozenset()
    readings: Mapping[str, Reading] = field(default_factory=dict)
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    concurrency: int | None = None
    processes: frozenset[int] | None = None
    misrouted: int = 0

    def serves(self, queue: str) -> QueueState | None:
        return next((state for state in self.queues if state.name == queue), None)

    def heard_of(self, now: int, within_ms: int = ALIVE_MS) -> bool:
        return now - within_ms <= self.seen_at <= now + MOST_SKEW_MS


# Said once, in SQL that is as it goes to the database: each idle worker says it every five seconds.
_SAID = ("pid", "seen_at", "concurrency", "processes", "queues", "labels", "readings", "conditions")
_SAME = "backhaul_worker.pid = excluded.pid AND backhaul_worker.started_at = coalesce(?, backhaul_worker.started_at)"
_BEAT = f"""
    INSERT INTO backhaul_worker (
        node, name, pid, started_at, seen_at, concurrency, processes, queues, labels, readings, conditions
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (node, name) DO UPDATE SET
        started_at = CASE WHEN {_SAME} THEN backhaul_worker.started_at ELSE excluded.started_at END,
        misrouted = CASE WHEN {_SAME} THEN backhaul_worker.misrouted ELSE 0 END,
        {", ".join(f"{column} = excluded.{column}" for column in _SAID)}
"""  # noqa: S608 - nothing but our own words
_states = msgspec.json.Decoder(tuple[QueueState, ...])
_pids = msgspec.json.Decoder(frozenset[int])
_labels = msgspec.json.Decoder(frozenset[str])
_conditions = msgspec.json.Decoder(tuple[Condition, ...])


def beat(
    connection: Connection,
    *,
    name: str,
    pid: int,
    queues: Sequence[QueueState],
    now: int,
    started_at: int | None = None,
    node: str = "",
    labels: Iterable[str] = (),
    readings: Readings | None = None,
    conditions: Mapping[str, Condition] | None = None,
    concurrency: int | None = None,
    processes: Iterable[int] | None = None,
) -> None:
    """Say that a worker is alive, what it serves, and what it sees. The same name on the same node with another pid, or
    another start, is a worker started again, which has misrouted nothing yet.

    started_at: when its process began; None: at its first beat. In a container each start has the same pid.
    """
    told = (
        *(node, name, pid, now if started_at is None else started_at, now, concurrency),
        None if processes is None else _encoded(processes),
        _encoded(queues),
        _encoded(sorted(labels)),
        encode_readings(readings or {}),
        _encoded((conditions or {}).values()),
    )
    run(connection, _BEAT, (*told, started_at, started_at))


def misrouted(connection: Connection, name: str, node: str = "") -> None:
    """This worker has handed back a message that was not for it."""
    of_it = update(worker).where(worker.c.node == node, worker.c.name == name)
    connection.execute(of_it.values(misrouted=worker.c.misrouted + 1))


def leave(connection: Connection, name: str, node: str = "") -> None:
    connection.execute(delete(worker).where(worker.c.node == node, worker.c.name == name))


def alive(connection: Connection, now: int, within_ms: int = ALIVE_MS) -> list[Worker]:
    """The workers that were heard of within so many milliseconds, by node and name."""
    heard_of = worker.c.seen_at.between(now - within_ms, now + MOST_SKEW_MS)
    rows = connection.execute(select(worker).where(heard_of).order_by(worker.c.node, worker.c.name))
    return [_from_row(row) for row in rows.mappings()]


def named(connection: Connection, names: Collection[str]) -> list[Worker]:
    """The workers of these names, on any node, whenever they were heard of."""
    rows = connection.execute(select(worker).where(worker.c.name.in_(names)))
    return [_from_row(row) for row in rows.mappings()]


def forget_gone(connection: Connection, *, now: int, older_than_ms: int) -> int:
    """Drop the workers that were not heard of for so long; returns how many."""
    gone = delete(worker).where(worker.c.seen_at < now - older_than_ms).returning(worker.c.name)
    return len(connection.execute(gone).all())


def _encoded(values: Iterable[Any]) -> str:
    return msgspec.json.encode(list(values)).decode()


def _from_row(row: RowMapping) -> Worker:
    return Worker(
        **{
            **row,
            "queues": _states.decode(row["queues"]),
            "processes": None if row["processes"] is None else _pids.decode(row["processes"]),
            "labels": _labels.decode(row["labels"]),
            "readings": {one.name: one for one in decode_readings(row["readings"])},
            "conditions": {one.name: one for one in _conditions.decode(row["conditions"])},
        }
    )
