"""Why a piece of work is not done yet, in one line: its state, what it waits for, who could run it, its next try, its
last error. One function for each state; each part of the line is a phrase of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from backhaul.bell import Queue
from backhaul.clock import iso
from backhaul.errors import Unknown
from backhaul.schema import work as table
from backhaul.schema import work_parent, work_trigger
from backhaul.work import ledger
from backhaul.work.conditions import Condition, is_label
from backhaul.work.ledger import Work
from backhaul.work.placing import Verdict, judge
from backhaul.work.roster import Worker

MOST_NAMED = 5  # parents, triggers, workers; more are counted
MOST_LACKING = 20  # workers, where none could run it
LONGEST_PROGRESS = 200  # characters


@dataclass(frozen=True, kw_only=True)
class Around:
    """What a piece of work has around it: this machine, and the workers that were heard of lately, on any."""

    node: str
    most_losses: int | None
    conditions: Mapping[str, Condition]
    labels: frozenset[str]
    queues: Sequence[Queue]
    workers: Sequence[Worker]
    now: int


def why(
    connection: Connection,
    work_id: str,
    conditions: Mapping[str, Condition],
    labels: frozenset[str],
    queues: Sequence[Queue],
    workers: Sequence[Worker],
    now: int,
    *,
    node: str = "",
    most_losses: int | None = None,
) -> str:
    """One line. conditions, labels: of this machine, which is called `node`. workers: those alive, as `roster.alive`
    gives them. most_losses: as `ledger.recover` is told, if that is known here. Raises Unknown."""
    work = ledger.get(connection, work_id)
    if work is None:
        raise Unknown(
            f"there is no work {work_id!r}: it was never kept (an enqueue under a name that is in use keeps nothing "
            "new: the answer names what it kept), or it ended and was pruned",
            hint="backhaul work list",
        )
    around = Around(
        node=node,
        most_losses=most_losses,
        conditions=conditions,
        labels=labels,
        queues=queues,
        workers=workers,
        now=now,
    )
    if work.state == "ENQUEUED":
        parts = _waiting(connection, work, around)
    elif work.state == "RUNNING":
        parts = _running(work, now)
    elif work.state == "BLOCKED":
        parts = _blocked(connection, work, now)
    else:
        parts = _finished(work)
    return f"{work.state}: " + "; ".join(parts)


# ------------------------------------------------------------------------------------------------ BLOCKED


def _blocked(connection: Connection, work: Work, now: int) -> list[str]:
    rows = connection.execute(
        select(table.c.id, table.c.task, table.c.function, table.c.state)
        .join(work_parent, work_parent.c.parent_id == table.c.id)
        .where(work_parent.c.work_id == work.id)
        .order_by(work_parent.c.position)
    ).all()
    unfinished = [row for row in rows if row.state != "SUCCEEDED"]
    named = _some([f"{row.function or row.task} {row.id} ({row.state})" for row in unfinished])
    held = f"held back by the name {work.name}: " if work.name is not None else ""
    parts = [f"{held}waits for {named}" if unfinished else f"{held}what it waited for has succeeded; it is let go next"]
    if len(rows) > len(unfinished):
        parts.append(f"{len(rows) - len(unfinished)} of {len(rows)} have succeeded")
    return [*parts, *_expiry(work, now)]


# ------------------------------------------------------------------------------------------------ ENQUEUED


def _waiting(connection: Connection, work: Work, around: Around) -> list[str]:
    now = around.now
    queue = next((queue for queue in around.queues if queue.name == work.queue), None)
    tags = frozenset(work.requires) | (queue.tags if queue else frozenset())
    here = judge(tags, around.conditions, around.labels)
    elsewhere = any(_opens(work, worker) for worker in around.workers if worker.node != around.node)
    workless = all(worker.node != around.node for worker in around.workers) and around.workers
    closed = () if elsewhere or workless else here.closed
    triggers = _triggers(connection, work) if work.trigger_update_ms is not None else []
    if closed:
        tags_closed = ", ".join(_closed_tag(tag, around.conditions) for tag in closed)
        where = f" on {around.node}" if any(worker.node != around.node for worker in around.workers) else ""
        parts = [f"waits for {tags_closed}{where} on queue {work.queue}", *_changes(triggers), *_tried(work)]
        opening = "when it opens" if work.due_at <= now else f"when it opens, and not before {iso(work.due_at)}"
        parts += [] if work.due_at >= ledger.NEVER else [f"next try {opening}"]
    elif triggers and work.due_at > now and not work.attempt:
        parts = _changes(triggers)
        parts += [] if work.due_at >= ledger.NEVER else [f"runs at {iso(work.due_at)} if it stays still"]
    elif work.due_at > now:
        parts = [
            f"{_its_time(work, around.most_losses)} on queue {work.queue}",
            *_tried(work),
            f"next try at {iso(work.due_at)}",
        ]
    else:
        parts = [_no_worker(work, queue, around.workers), *_tried(work), f"due since {iso(work.due_at)}"]
    parts += [*_expiry(work, now), *_last(work)]
    return [*parts, *_who_could(work, around, here)]


def _its_time(work: Work, most_losses: int | None) -> str:
    """What the time is of."""
    if work.override_at is not None:
        return f"waits for its time, said by override: {iso(work.override_at)},"
    backoff = f"({work.backoff_policy}, from {_span(work.backoff_ms)})"
    if work.attempt and work.last_outcome == "retry":
        return f"backs off {backoff}"
    if work.backoff_on_stop and work.last_outcome == "stopped":
        return f"backs off after a stop {backoff}"
    if work.losses and work.last_outcome == "lost":
        return _after_losses(work, most_losses)
    if work.periodic and work.runs:
        return f"waits for its time, once in {_span(work.interval_ms)},"
    if work.begin_at is not None and work.begin_at == work.due_at:
        return "waits for its time, when it may begin,"
    if work.initial_delay_ms and not work.attempt:
        return f"waits for its time, {_span(work.initial_delay_ms)} after it was enqueued,"
    return "waits for its time"


def _after_losses(work: Work, most: int | None) -> str:
    said = f"backs off after {work.losses} loss{'es' if work.losses > 1 else ''} in a row"
    if most is None:
        return said
    deaths = f"{work.crashes or 'none'} by the death of its own process alone"
    return f"{said}, {deaths} (fails after {most} such deaths, or {most * ledger.WITH_ITS_WORKER} losses)"


def _no_worker(work: Work, queue: Queue | None, workers: Sequence[Worker]) -> str:
    if queue is None:
        return f"queue {work.queue} is no longer declared in backhaul.toml"
    states = [state for state in (worker.serves(work.queue) for worker in workers) if state is not None]
    if not states:
        return f"no live worker serves queue {work.queue}"
    if not any(state.open for state in states):
        return f"queue {work.queue} is closed on every worker that serves it"
    return f"waits for a free worker on queue {work.queue}"


def _who_could(work: Work, around: Around, here: Verdict) -> list[str]:
    """Each live worker, with its node: those that serve the queue, and then, node by node, those that do not."""
    serving = [worker for worker in around.workers if worker.serves(work.queue)]
    others: dict[str, list[str]] = {}
    for worker in around.workers:
        if worker not in serving:
            others.setdefault(worker.node, []).append(worker.name)
    said = [_worker(work, worker, around, here) for worker in serving]
    said += [_serves_not(work, node, names) for node, names in others.items()]
    most = MOST_NAMED if any(_opens(work, worker) for worker in serving) else MOST_LACKING
    return [f"workers: {_some(said, most=most)}"] if said else []


def _worker(work: Work, worker: Worker, around: Around, here: Verdict) -> str:
    state = worker.serves(work.queue)
    assert state is not None
    named = f"{worker.name}{_on(worker.node)}"
    since = f" since {iso(state.since)}" if state.since else ""
    if not state.open:
        return f"{named} cannot{since} ({state.reason})"
    if not here.open and around.node and worker.node == around.node:  # it will see that in a second
        return f"{named} cannot ({here.reason})"
    return f"{named} could{since}"


def _serves_not(work: Work, node: str, names: Sequence[str]) -> str:
    return f"{_some(names)}{_on(node)} {'does' if len(names) == 1 else 'do'} not serve {work.queue}"


def _opens(work: Work, worker: Worker) -> bool:
    state = worker.serves(work.queue)
    return state is not None and state.open


def _on(node: str) -> str:
    return f" on {node}" if node else ""


def _closed_tag(tag: str, conditions: Mapping[str, Condition]) -> str:
    if is_label(tag):
        return f"a machine labelled {tag}"
    condition = conditions[tag]
    since = f" since {iso(condition.since)}" if condition.since is not None else ""
    until = f", until {iso(condition.expires_at)}" if condition.expires_at is not None else ""
    return f"{tag} (off by {condition.who}{since}{until})"


def _triggers(connection: Connection, work: Work) -> Sequence[Any]:
    columns = work_trigger.c
    shown = columns.kind, columns.what, columns.first_at, columns.last_at, columns.unanswered_at
    wanted = select(*shown).where(columns.work_id == work.id)
    return connection.execute(wanted.order_by(columns.kind, columns.what)).all()


def _changes(triggers: Sequence[Any]) -> list[str]:
    changed = [f"{row.kind} {row.what} (last at {iso(row.last_at)})" for row in triggers if row.last_at is not None]
    unanswered = [row for row in triggers if row.unanswered_at is not None]
    hanging = [f"{row.kind} {row.what} has not answered since {iso(row.unanswered_at)}" for row in unanswered]
    hangs = [f"{_some(hanging)}: is its file system there?"] if hanging else []
    if changed:
        return [f"has seen a change of {_some(changed)}", *hangs]
    waits = [f"waits for a change of {_some([f'{row.kind} {row.what}' for row in triggers])}"] if triggers else []
    return [*waits, *hangs]


# ------------------------------------------------------------------------------------------------ RUNNING, finished


def _running(work: Work, now: int) -> list[str]:
    parts = [f"on {work.worker} since {iso(work.started_at)}, try {work.attempt}"]
    if work.progress is not None:
        parts.append(f"progress {msgspec.json.encode(work.progress).decode()[:LONGEST_PROGRESS]}")
    if work.stop_requested is not None:
        parts.append(f"asked to stop: {work.stop_requested}")
    if work.lease_until <= now:
        parts.append(f"its lease passed at {iso(work.lease_until)}: its worker is not heard of; it will be taken back")
    return [*parts, *_last(work)]


def _finished(work: Work) -> list[str]:
    parts = [f"since {iso(work.finished_at)}", *_tried(work)]
    if work.state == "FAILED":
        said = f"failed with: {work.last_error}" if work.attempt else work.last_error
        return [*parts, *([said] if said else [])]
    if work.state == "CANCELLED":
        parts += [work.last_error] if work.last_error else []
        parts += [f"as {work.stop_reason}"] if work.stop_reason else []
    return parts


# ------------------------------------------------------------------------------------------------ phrases


def _tried(work: Work) -> list[str]:
    return [f"tried {work.attempt} time{'s' if work.attempt > 1 else ''}"] if work.attempt else []


def _expiry(work: Work, now: int) -> list[str]:
    if work.expires_at is None or work.attempt:
        return []
    if work.expires_at <= now:
        return [f"expired at {iso(work.expires_at)}, and is cancelled next"]
    return [f"expires at {iso(work.expires_at)} unless it has begun"]


def _last(work: Work) -> list[str]:
    parts = [f"last stop: {work.stop_reason}"] if work.stop_reason and work.state == "ENQUEUED" else []
    return [*parts, f"last error: {work.last_error}"] if work.last_error else parts


def _some(said: Sequence[str], *, most: int = MOST_NAMED) -> str:
    more = f", and {len(said) - most} more" if len(said) > most else ""
    return ", ".join(said[:most]) + more


def _span(milliseconds: int) -> str:
    return str(timedelta(seconds=milliseconds // 1000))
