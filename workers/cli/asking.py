"""Asking for a push, a pull or a reconcile now, and waiting for what becomes of it.

The work's row is the truth: asking makes it due and rings, waiting reads the row. `runs` counts the periods that were
closed, so a run that began after we asked shows as a number; a try that failed shows as a retry, with its reason.
Where no live worker serves the queue, the same journey runs in this process.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from backhaul.errors import Refused
from backhaul.remotes import endpoint
from backhaul.replica import outbox, tables
from backhaul.work import ledger
from backhaul.work.ledger import Work
from backhaul.work.why import why
from config.queues import declared
from config.schedule import ensure_standing
from workers.cli.here import Here, live_workers
from workers.cli.journeys import Watch, run_in_this_process

LOOK_SECONDS = 0.1
ASK_AGAIN_SECONDS = 1.0
EXIT = {"done": 0, "asked": 0, "failed": Refused.exit_status, "waiting": 75}


@dataclass(frozen=True)
class Outcome:
    """asked: a worker was told, and nobody waited. waiting: not done yet, and not lost; `said` says what for."""

    work: str
    state: Literal["done", "asked", "failed", "waiting"]
    said: str
    ran_here: bool = False

    @property
    def exit_status(self) -> int:
        return EXIT[self.state]


def ask(here: Here, name: str, *, wait_seconds: float | None, watch: Watch) -> Outcome:
    """name: push, pull or reconcile. wait_seconds: None does not wait for a worker."""
    asked_at = here.now
    before = _awake(here, name)
    if not _served(here, before.queue):
        return _run_here(here, before, watch)
    if wait_seconds is None:
        return Outcome(name, "asked", f"{name}: the worker of queue {before.queue} was told")
    return _wait(here, before, asked_at=asked_at, deadline=time.monotonic() + wait_seconds, watch=watch)


def _awake(here: Here, name: str) -> Work:
    """Due now, even if it was backing off: a person asked. Returns the row as it stands then. Raises TableAltered."""
    with here.database.reading() as connection:
        tables.checked(connection)
    with here.database.writing() as connection:
        if ledger.get(connection, name) is None:
            ensure_standing(connection, here.settings, here.now)
        endpoint.let_go(connection)
        if name != "pull":
            outbox.hasten(connection)
        woken = ledger.wake(connection, name, here.now, force=True)
        row = woken or ledger.get(connection, name)
    if woken is not None and _served(here, woken.queue):
        here.bell.ring(woken.ring)
    assert row is not None
    return row


def _served(here: Here, queue: str) -> bool:
    with here.database.reading() as connection:
        return any(worker.serves(queue) for worker in live_workers(connection, here.now, here.settings.node))


# ------------------------------------------------------------------------------------------------ by a worker


def _wait(here: Here, before: Work, *, asked_at: int, deadline: float, watch: Watch) -> Outcome:
    wanted = before.runs + (2 if before.state == "RUNNING" else 1)  # a run that was under way may have looked already
    ask_again_at = time.monotonic() + ASK_AGAIN_SECONDS
    while time.monotonic() < deadline:
        row = _row(here, before.id)
        watch(row.progress)
        if row.runs >= wanted:
            if row.last_outcome == "failure":
                return Outcome(row.id, "failed", f"{row.id}: {row.last_error}")
            if row.id == "pull" or not _left(here, asked_at):
                return Outcome(row.id, "done", f"{row.id}: done")
        if _out_of_reach(here, row, before, deadline):
            break
        if time.monotonic() >= ask_again_at and row.state == "ENQUEUED" and not _tried(row, before):
            _awake(here, row.id)
            ask_again_at = time.monotonic() + ASK_AGAIN_SECONDS
        time.sleep(LOOK_SECONDS)
    return Outcome(before.id, "waiting", f"{before.id}: not done: {_why(here, before.id, asked_at)}; nothing is lost")


def _why(here: Here, name: str, asked_at: int) -> str:
    line = why_work(here, name)
    held = name == "push" and line.startswith("ENQUEUED: waits for its time") and _left(here, asked_at)
    return f"{line}; a worker that was lost holds changes: they go again when its lease has passed" if held else line


def _left(here: Here, asked_at: int) -> bool:
    """Whether a change from before we asked has no outcome yet: another worker, perhaps a dead one, has it."""
    with here.database.reading() as connection:
        oldest = outbox.counts(connection).oldest_pending_at
    return oldest is not None and oldest <= asked_at


def _tried(row: Work, before: Work) -> bool:
    """Whether it is backing off after a try of ours."""
    return row.fence > before.fence and row.last_outcome == "retry" and row.attempt > 0


def _out_of_reach(here: Here, row: Work, before: Work, deadline: float) -> bool:
    """Whether the next try comes too late for whoever waits."""
    left_ms = (deadline - time.monotonic()) * 1000
    return row.state == "ENQUEUED" and _tried(row, before) and row.due_at > here.now + left_ms


def _row(here: Here, name: str) -> Work:
    with here.database.reading() as connection:
        row = ledger.get(connection, name)
    assert row is not None
    return row


def why_work(here: Here, work_id: str) -> str:
    """One line. Raises Unknown."""
    now = here.now
    with here.database.reading() as connection:
        conditions, labels = here.conditions(connection)
        workers = live_workers(connection, now, here.settings.node)
        queues, node = declared(here.settings), here.settings.node
        most = here.settings.work.most_losses
        line = why(connection, work_id, conditions, labels, queues, workers, now, node=node, most_losses=most)
    return " ".join(line.split())  # the error of a driver may have several lines


# ------------------------------------------------------------------------------------------------ in this process


def _run_here(here: Here, row: Work, watch: Watch) -> Outcome:
    settled = run_in_this_process(here, row, watch)
    if settled.kind == "done":
        return Outcome(row.id, "done", f"{row.id}: done", ran_here=True)
    if settled.kind == "failed":
        return Outcome(row.id, "failed", f"{row.id}: {settled.reason}", ran_here=True)
    return Outcome(row.id, "waiting", f"{row.id}: not done: {why_work(here, row.id)}; nothing is lost", ran_here=True)
