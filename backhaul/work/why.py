"""Why a piece of work is not done yet, in one line: its state, what it waits for, its next try, its last error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from backhaul.bell import Queue
from backhaul.clock import iso
from backhaul.errors import Unknown
from backhaul.work import ledger
from backhaul.work.conditions import Condition, is_label
from backhaul.work.constraints import judge
from backhaul.work.ledger import Work
from backhaul.work.roster import Worker


def why(
    connection: Connection,
    work_id: str,
    conditions: Mapping[str, Condition],
    labels: frozenset[str],
    queues: Sequence[Queue],
    workers: Sequence[Worker],
    now: int,
) -> str:
    """One line. workers: those alive, as `roster.alive` gives them. Raises Unknown."""
    work = ledger.get(connection, work_id)
    if work is None:
        raise Unknown(f"there is no work {work_id!r}", hint="backhaul status counts the work there is")
    if work.state == "ENQUEUED":
        parts = _waiting(work, conditions, labels, queues, workers, now)
    elif work.state == "RUNNING":
        parts = _running(work, now)
    elif work.state == "BLOCKED":
        parts = ["waits for other work"]
    else:
        parts = [f"since {iso(work.finished_at)}", *_tried(work)]
    return f"{work.state}: " + "; ".join([*parts, *_last_error(work)])


def _waiting(
    work: Work,
    conditions: Mapping[str, Condition],
    labels: frozenset[str],
    queues: Sequence[Queue],
    workers: Sequence[Worker],
    now: int,
) -> list[str]:
    queue = next((queue for queue in queues if queue.name == work.queue), None)
    tags = frozenset(work.requires) | (queue.tags if queue else frozenset())
    closed = judge(tags, conditions, labels).closed
    if closed:
        tags_closed = ", ".join(_closed_tag(tag, conditions) for tag in closed)
        opening = "when it opens" if work.due_at <= now else f"when it opens, and not before {iso(work.due_at)}"
        return [f"waits for {tags_closed} on queue {work.queue}", *_tried(work), f"next try {opening}"]
    if work.due_at > now:
        return [f"waits for its time on queue {work.queue}", *_tried(work), f"next try at {iso(work.due_at)}"]
    return [_no_worker(work, queue, workers), *_tried(work), f"due since {iso(work.due_at)}"]


def _no_worker(work: Work, queue: Queue | None, workers: Sequence[Worker]) -> str:
    if queue is None:
        return f"queue {work.queue} is no longer declared in backhaul.toml"
    states = [state for state in (worker.serves(work.queue) for worker in workers) if state is not None]
    if not states:
        return f"no live worker serves queue {work.queue}"
    if not any(state.open for state in states):
        return f"queue {work.queue} is closed on every worker that serves it ({states[0].reason})"
    return f"waits for a free worker on queue {work.queue}"


def _closed_tag(tag: str, conditions: Mapping[str, Condition]) -> str:
    if is_label(tag):
        return f"a machine labelled {tag}"
    condition = conditions[tag]
    since = f" since {iso(condition.since)}" if condition.since is not None else ""
    return f"{tag} (off by {condition.source}{since})"


def _running(work: Work, now: int) -> list[str]:
    parts = [f"on {work.worker} since {iso(work.started_at)}, try {work.attempt}"]
    if work.stop_requested is not None:
        parts.append(f"asked to stop: {work.stop_requested}")
    if work.lease_until <= now:
        parts.append("its worker is not heard of; it will be taken back")
    return parts


def _tried(work: Work) -> list[str]:
    return [f"tried {work.attempt} time{'s' if work.attempt > 1 else ''}"] if work.attempt else []


def _last_error(work: Work) -> list[str]:
    parts = [f"last stop: {work.stop_reason}"] if work.stop_reason and work.state == "ENQUEUED" else []
    return [*parts, f"last error: {work.last_error}"] if work.last_error else parts
