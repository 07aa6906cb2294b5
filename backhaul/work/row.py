"""Work as its row says it is: a value, read and never written here (the ledger does that)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from sqlalchemy import RowMapping

from backhaul.backoff import Backoff
from backhaul.bell import Ring
from backhaul.work.data import decode_data
from backhaul.work.request import CELERY_TASK

State = Literal["ENQUEUED", "RUNNING", "SUCCEEDED", "FAILED", "BLOCKED", "CANCELLED"]
UNFINISHED: tuple[State, ...] = ("ENQUEUED", "RUNNING", "BLOCKED")
FINISHED: tuple[State, ...] = ("SUCCEEDED", "FAILED", "CANCELLED")
NEVER = 2**62  # when what waits for other work, or for a change, is due: it is given a time when that comes


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
    ordinary_queue: str | None
    requires: tuple[str, ...]
    tags: tuple[str, ...]
    input: dict[str, Any]
    output: dict[str, Any] | None
    progress: dict[str, Any] | None
    checkpoint: dict[str, Any] | None
    merger: str | None
    interval_ms: int
    flex_ms: int
    initial_delay_ms: int
    begin_at: int | None
    override_at: int | None
    override_generation: int
    expires_at: int | None
    backoff_policy: Literal["exponential", "linear"]
    backoff_ms: int
    backoff_most_ms: int
    backoff_on_stop: bool
    jitter: int
    max_attempts: int | None
    expedited: bool
    trigger_update_ms: int | None
    trigger_most_ms: int | None
    triggered: tuple[str, ...]
    created_at: int
    enqueued_at: int
    due_at: int
    rung_at: int
    attempt: int
    retries: int
    losses: int
    crashes: int
    runs: int
    parents: int
    children: int
    started_at: int | None
    finished_at: int | None
    node: str | None
    worker: str | None
    process: int | None
    lease_until: int
    fence: int
    stop_requested: str | None
    stop_reason: str | None
    started_before: int | None
    stopped_before: str | None
    last_error: str | None
    last_outcome: str | None

    @property
    def label(self) -> str:
        """What people see."""
        return self.function or self.task

    @property
    def ours(self) -> bool:
        """Whether it is sync's own, and none of the host's."""
        return self.task.startswith("backhaul.") and self.task != CELERY_TASK

    @property
    def periodic(self) -> bool:
        return self.interval_ms > 0

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @property
    def place(self) -> str:
        """Where it stands in a list that begins with what is unfinished: for the next page of it."""
        return f"{'' if self.finished_at is None else self.finished_at}.{self.created_at}.{self.id}"

    @property
    def next_run_at(self) -> int | None:
        """When it may run next, which may have passed; None while it runs, waits for other work or for a change, or is
        finished."""
        return self.due_at if self.state == "ENQUEUED" and self.due_at < NEVER else None

    @property
    def task_id(self) -> str:
        """How Celery and Flower call this run; the tries of one run share it."""
        return f"{self.id}.{self.runs}" if self.periodic else self.id

    @property
    def ring(self) -> Ring:
        """What a message for this work says, now."""
        return Ring(
            task=self.task,
            work_id=self.id,
            generation=self.generation,
            queue=self.queue,
            task_id=self.task_id,
            shadow=self.function,
        )

    @property
    def backoff(self) -> Backoff:
        return Backoff(
            policy=self.backoff_policy,
            initial_ms=self.backoff_ms,
            most_ms=self.backoff_most_ms,
            jitter=self.jitter / 100,
        )


def work_from_row(row: RowMapping | Mapping[str, Any]) -> Work:
    return Work(
        **{
            **row,
            "requires": tuple(msgspec.json.decode(row["requires"])),
            "tags": tuple(msgspec.json.decode(row["tags"])),
            "input": decode_data(row["input"]),
            "output": None if row["output"] is None else decode_data(row["output"]),
            "progress": None if row["progress"] is None else decode_data(row["progress"]),
            "checkpoint": None if row["checkpoint"] is None else decode_data(row["checkpoint"]),
            "backoff_on_stop": bool(row["backoff_on_stop"]),
            "expedited": bool(row["expedited"]),
            "triggered": tuple(msgspec.json.decode(row["triggered"])) if row["triggered"] else (),
        }
    )
