"""Work as its row says it is: a value, read and never written here (the ledger does that)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from sqlalchemy import RowMapping

from backhaul.backoff import Backoff
from backhaul.bell import Ring
from backhaul.work.data import decode_data

State = Literal["ENQUEUED", "RUNNING", "SUCCEEDED", "FAILED", "BLOCKED", "CANCELLED"]
FINISHED = ("SUCCEEDED", "FAILED", "CANCELLED")


@dataclass(frozen=True, kw_only=True)
class Work:
    """Every column of backhaul_work, decoded. Times are milliseconds; `schema.py` says what each column means."""

    id: str
    name: str | None
    task: str
    function: str | None
    state: State
    generation: int
    queue: str
    requires: tuple[str, ...]
    tags: tuple[str, ...]
    input: dict[str, Any]
    output: dict[str, Any] | None
    progress: dict[str, Any] | None
    interval_ms: int
    flex_ms: int
    backoff_policy: Literal["exponential", "linear"]
    backoff_ms: int
    backoff_most_ms: int
    jitter: int
    max_attempts: int | None
    created_at: int
    enqueued_at: int
    due_at: int
    rung_at: int
    attempt: int
    runs: int
    started_at: int | None
    finished_at: int | None
    worker: str | None
    lease_until: int
    fence: int
    stop_requested: str | None
    stop_reason: str | None
    last_error: str | None
    last_outcome: str | None

    @property
    def periodic(self) -> bool:
        return self.interval_ms > 0

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @property
    def task_id(self) -> str:
        """How Celery and Flower call this run; the tries of one run share it."""
        return f"{self.id}.{self.runs}" if self.periodic else self.id

    @property
    def ring(self) -> Ring:
        """What a message for this work says, now."""
        return Ring(task=self.task, work_id=self.id, generation=self.generation, queue=self.queue, task_id=self.task_id)

    @property
    def backoff(self) -> Backoff:
        return Backoff(
            policy=self.backoff_policy,
            initial_ms=self.backoff_ms,
            most_ms=self.backoff_most_ms,
            jitter=self.jitter / 100,
        )


def work_from_row(row: RowMapping) -> Work:
    return Work(
        **{
            **row,
            "requires": tuple(msgspec.json.decode(row["requires"])),
            "tags": tuple(msgspec.json.decode(row["tags"])),
            "input": decode_data(row["input"]),
            "output": None if row["output"] is None else decode_data(row["output"]),
            "progress": None if row["progress"] is None else decode_data(row["progress"]),
        }
    )
