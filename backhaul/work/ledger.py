"""The work there is, and what became of it. Owner of backhaul_work: nothing else writes it.

    enqueue ──> ENQUEUED ── claim ──> RUNNING ── succeed ──> SUCCEEDED   (periodic: ENQUEUED, a period is closed)
                   ^                     │───── fail ────> FAILED      (periodic: the same)
                   │<── retry, stop, ────┤
                   │    postpone, recover
                   └───────── cancel ────┴───────────────> CANCELLED

Each transition is guarded in its WHERE: what is not in the state it starts from is left alone. A run is known by its
fence, a number that every claim raises; who settles with an old one is told so (Stopped), and nothing is written.

The times follow WorkManager, with `enqueued_at` as the anchor of delays:
- a retry is due at its own time plus the backoff of the tries so far, and no sooner than the other side asked for;
- a period ends with success or failure, and the next run is due an interval later: completion time, no fixed grid;
- a stop is no try that failed. The attempt stays counted, the work stays due, and runs as soon as it may. WorkManager
  measures `enqueued_at + backoff(attempt)` here, almost always past, but for work that has been stopped ten times it
  is hours. A run that has used up its time (TIMEOUT) is a checkpoint, and gives its attempt back;
- postponing gives the attempt back: a wait is not a failure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Update, bindparam, case, func, literal, not_, or_, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.sql.dml import ReturningUpdate

from backhaul.errors import Misused, Stopped
from backhaul.schema import work as table
from backhaul.statements import insert
from backhaul.work.data import encode_data
from backhaul.work.request import WorkRequest
from backhaul.work.row import FINISHED, work_from_row
from backhaul.work.row import State as State
from backhaul.work.row import Work as Work

Policy = Literal["keep", "replace", "update"]
LONGEST_ERROR = 1_000  # characters kept of an error's text
LONGEST_LEASE_MS = 3_600_000  # one that lasts longer was given while the clock was wrong
MOST_SKEW_MS = 120_000  # between the clocks of those who share a database; more than that is a clock that was wrong
UNCLAIMED: Mapping[str, Any] = {"worker": None, "lease_until": 0, "stop_requested": None, "rung_at": 0}

# ------------------------------------------------------------------------------------------------------ enqueue


def enqueue(connection: Connection, request: WorkRequest, *, queue: str, now: int) -> Work:
    """Keep the work. An id that exists already is left as it is, and returned. Raises Misused for a name in use."""
    if request.name is not None:
        holder = by_name(connection, request.name)
        if holder is not None and holder.id != request.id:
            raise Misused(f"there is work of the name {request.name!r}", hint="use enqueue_unique, with a policy")
    return _insert(connection, request, queue=queue, now=now)


def enqueue_unique(connection: Connection, request: WorkRequest, *, queue: str, policy: Policy, now: int) -> Work:
    """Keep the work unless its name is taken; by unfinished work, the policy decides.

    keep: the old one stays, and is returned. replace: the old one is cancelled (CANCELLED_BY_APP) and loses its name.
    update: the old one keeps id, state, attempt and times, takes everything else from the request, and is a new
    generation; a run that is under way ends as it began. Finished work always makes room.
    Raises Misused for a request without a name, and for an update from one-time to periodic work or back.
    """
    if request.name is None:
        raise Misused("unique work needs a name", hint="WorkRequest(..., name='...')")
    old = by_name(connection, request.name)
    if old is None:
        return _insert(connection, request, queue=queue, now=now)
    if old.finished or policy == "replace":
        return _replace(connection, old, request, queue=queue, now=now)
    return old if policy == "keep" else _update(connection, old, request, queue=queue, now=now)


def wake(connection: Connection, work_id: str, now: int, *, force: bool = False) -> Work | None:
    """Make waiting work due now, unless it is backing off (force: even then). None when it did not apply.

    Periodic work that is running will be due again as soon as this period closes: what the wake was for may have come
    after the run looked. That too returns None, for there is nothing to ring for yet.
    """
    woken = _one(connection, _pull_to_now(work_id, now, force=force))
    if woken is None:
        connection.execute(_run_again(work_id, now))
    return woken


def _insert(
    connection: Connection, request: WorkRequest, *, queue: str, now: int, generation: int = 0, fence: int = 0
) -> Work:
    values = _specification(request, queue) | {
        "id": request.id,
        "name": request.name,
        "state": "ENQUEUED",
        "generation": generation,
        "fence": fence,
        "created_at": now,
        "enqueued_at": now,
        "due_at": now + request.initial_delay_ms + _first_window(request),
    }
    made = _one(
        connection,
        insert(connection, table).values(values).on_conflict_do_nothing(index_elements=[table.c.id]).returning(table),
    )
    return made or _existing(connection, str(request.id))


def _replace(connection: Connection, old: Work, request: WorkRequest, *, queue: str, now: int) -> Work:
    if old.id == request.id:
        # A run of the old work may be under way: under the higher fence, it can settle nothing of the new one.
        connection.execute(delete_from(table).where(table.c.id == old.id))
        return _insert(connection, request, queue=queue, now=now, generation=old.generation + 1, fence=old.fence + 1)
    cancel(connection, old.id, now=now, by="work of the same name")
    connection.execute(update(table).where(table.c.id == old.id).values(name=None))
    return _insert(connection, request, queue=queue, now=now)


def _update(connection: Connection, old: Work, request: WorkRequest, *, queue: str, now: int) -> Work:
    if old.periodic != (request.interval_ms > 0):
        raise Misused(
            f"the work {request.name!r} is {'periodic' if old.periodic else 'one-time'}; an update cannot change that",
            hint="use the policy replace, or another name",
        )
    stored = connection.execute(select(table).where(table.c.id == old.id)).mappings().one()
    values = _specification(request, queue)
    if all(stored[column] == value for column, value in values.items()):
        return old
    values["generation"] = old.generation + 1
    if old.state == "ENQUEUED":
        values |= {"rung_at": 0, "progress": None, "due_at": _due_after_update(old, request, now)}
    return _one(connection, update(table).where(table.c.id == old.id).values(values).returning(table)) or old


def _specification(request: WorkRequest, queue: str) -> dict[str, Any]:
    return {
        "task": request.task,
        "function": request.function,
        "queue": queue,
        "requires": msgspec.json.encode(sorted(request.requires)).decode(),
        "tags": msgspec.json.encode(sorted(request.tags)).decode(),
        "input": encode_data("input", request.input),
        "interval_ms": request.interval_ms,
        "flex_ms": request.flex_ms,
        "backoff_policy": request.backoff.policy,
        "backoff_ms": request.backoff.initial_ms,
        "backoff_most_ms": request.backoff.most_ms,
        "jitter": round(request.backoff.jitter * 100),
        "max_attempts": request.max_attempts,
    }


def _first_window(request: WorkRequest) -> int:
    """Flex moves the first run only; all later ones are measured from the end of the one before."""
    return request.interval_ms - request.flex_ms if request.flex_ms else 0


def _due_after_update(old: Work, request: WorkRequest, now: int) -> int:
    if old.attempt > 0 or old.due_at <= now or not old.periodic:
        return old.due_at  # it backs off, or was woken, or waits for a delay: none of that is the update's business
    if old.runs > 0:
        return old.enqueued_at + request.interval_ms
    return old.enqueued_at + request.initial_delay_ms + _first_window(request)


def _pull_to_now(work_id: str, now: int, *, force: bool) -> ReturningUpdate[Any]:
    due = table.c.due_at
    return (
        update(table)
        .where(table.c.id == work_id, table.c.state == "ENQUEUED")
        .where(or_(table.c.attempt == 0, due <= now, literal(force)))
        .values(due_at=case((due < now, due), else_=now))
        .returning(table)
    )


def _run_again(work_id: str, now: int) -> Update:
    # While work runs its due time has no other use; one later than its start says: once more. See _close_period.
    started = table.c.started_at
    return (
        update(table)
        .where(table.c.id == work_id, table.c.state == "RUNNING", table.c.interval_ms > 0)
        .values(due_at=case((started >= now, started + 1), else_=now))
    )


# ---------------------------------------------------------------------------------------------------------- run


def claim(
    connection: Connection, work_id: str, generation: int, *, worker: str, now: int, lease_ms: int
) -> Work | None:
    """Take the work for a run. None when it is not waiting, not due, or of another generation."""
    claimed = (
        update(table)
        .where(table.c.id == work_id, table.c.generation == generation)
        .where(table.c.state == "ENQUEUED", table.c.due_at <= now)
        .values(UNCLAIMED)
        .values(
            state="RUNNING",
            attempt=table.c.attempt + 1,
            fence=table.c.fence + 1,
            worker=worker,
            started_at=now,
            lease_until=now + lease_ms,
            stop_reason=None,
        )
        .returning(table)
    )
    return _one(connection, claimed)


def renew(
    connection: Connection, work: Work, *, now: int, lease_ms: int, progress: Mapping[str, Any] | None = None
) -> str | None:
    """Keep the lease, and the progress if there is any; returns why the run should stop, if it should.

    Raises Stopped("LEASE_EXPIRED") when the work is no longer this run's, Misused for progress that is no small JSON.
    """
    values: dict[str, Any] = {"lease_until": now + lease_ms}
    if progress is not None:
        values["progress"] = encode_data("progress", progress)
    renewed = _one(connection, _held(work).values(values).returning(table))
    if renewed is not None:
        return renewed.stop_requested
    stopped = _lost(connection, work)
    if stopped.reason == "CANCELLED_BY_APP":
        return stopped.reason
    raise stopped


def succeed(connection: Connection, work: Work, *, now: int, output: Mapping[str, Any] | None = None) -> Work:
    """The run has done it. The output is kept; that of periodic work is not, as in WorkManager."""
    if work.periodic:
        return _settle(connection, work, _close_period(work, now, outcome="success", error=None))
    text = None if output is None else encode_data("output", output)
    return _settle(connection, work, _finish(work, "SUCCEEDED", now, outcome="success", error=None, output=text))


def fail(connection: Connection, work: Work, *, now: int, error: str) -> Work:
    """The run could not do it, and another try would not either. Periodic work runs again after its interval."""
    if work.periodic:
        return _settle(connection, work, _close_period(work, now, outcome="failure", error=error))
    return _settle(connection, work, _finish(work, "FAILED", now, outcome="failure", error=error, output=None))


def retry(connection: Connection, work: Work, *, now: int, error: str, retry_after_ms: int | None = None) -> Work:
    """The same again later: after the backoff, and no sooner than asked. After the last attempt it is a failure."""
    if work.max_attempts is not None and work.attempt >= work.max_attempts:
        return fail(connection, work, now=now, error=error)
    delay = max(work.backoff.delay_ms(work.attempt), retry_after_ms or 0)
    values = _waiting() | {
        "enqueued_at": now,
        "due_at": now + delay,
        "stop_reason": None,
        "progress": None,
        "last_error": error[:LONGEST_ERROR],
        "last_outcome": "retry",
    }
    return _settle(connection, work, _held(work).values(values).returning(table))


def stop(connection: Connection, work: Work, *, now: int, reason: str) -> Work:
    """The run was asked to stop, and has checkpointed: it stays due. Progress is kept; see above for the attempt."""
    values = _waiting() | {
        "due_at": case((table.c.due_at > now, now), else_=table.c.due_at),
        "attempt": work.attempt - 1 if reason == "TIMEOUT" else work.attempt,
        "stop_reason": reason,
        "last_outcome": "stopped",
    }
    return _settle(connection, work, _held(work).values(values).returning(table))


def postpone(connection: Connection, work: Work, *, now: int, due_at: int) -> Work:
    """The run did not begin: not before `due_at`, and it does not count.

    One that stays due counts as rung just now, or the bell and the worker would play ball with it.
    """
    values = _waiting() | {
        "due_at": due_at,
        "rung_at": now if due_at <= now else 0,
        "attempt": work.attempt - 1,
    }
    return _settle(connection, work, _held(work).values(values).returning(table))


def request_stop(connection: Connection, work_id: str, reason: str) -> Work | None:
    """Ask a running work to stop; it hears of it at its next renewal. None when it does not run."""
    asked = update(table).where(table.c.id == work_id, table.c.state == "RUNNING").values(stop_requested=reason)
    return _one(connection, asked.returning(table))


def cancel(connection: Connection, work_id: str, *, now: int, by: str) -> Work | None:
    """End the work for good; a run under way hears of it at its next renewal, and its result is ignored.

    None when it is finished already, or unknown.
    """
    was_running = table.c.state == "RUNNING"
    cancelled = (
        update(table)
        .where(table.c.id == work_id, table.c.state.not_in(FINISHED))
        .values(UNCLAIMED)
        .values(
            state="CANCELLED",
            finished_at=now,
            progress=None,
            stop_reason=case((was_running, "CANCELLED_BY_APP"), else_=table.c.stop_reason),
            last_error=f"cancelled by {by}"[:LONGEST_ERROR],
        )
        .returning(table)
    )
    return _one(connection, cancelled)


def recover(connection: Connection, now: int) -> list[Work]:
    """Take back what died with its worker: the lease has passed. It stays due, and the attempt stays counted."""
    recovered = (
        update(table)
        .where(table.c.state == "RUNNING", not_(table.c.lease_until.between(now + 1, now + LONGEST_LEASE_MS)))
        .values(_waiting())
        .values(
            due_at=case((table.c.due_at > now, now), else_=table.c.due_at),
            progress=None,
            stop_reason="WORKER_LOST",
            last_outcome="lost",
        )
        .returning(table)
    )
    return _all(connection, recovered)


def mend_clock(connection: Connection, now: int) -> int:
    """Make due what began to wait in what is now the future: the machine's clock was ahead, and was set right."""
    ahead = (
        update(table)
        .where(table.c.state == "ENQUEUED", table.c.enqueued_at > now + MOST_SKEW_MS)
        .values(enqueued_at=now, due_at=now, rung_at=0)
    )
    rung = update(table).where(table.c.state == "ENQUEUED", table.c.rung_at > now + MOST_SKEW_MS).values(rung_at=0)
    return connection.execute(ahead).rowcount + connection.execute(rung).rowcount


def _close_period(work: Work, now: int, *, outcome: str, error: str | None) -> ReturningUpdate[Any]:
    woken = table.c.due_at > table.c.started_at  # while it ran; see _run_again
    return (
        _held(work)
        .values(_waiting())
        .values(
            attempt=0,
            runs=table.c.runs + 1,
            enqueued_at=now,
            due_at=case((woken, now), else_=now + table.c.interval_ms),
            progress=None,
            stop_reason=None,
            last_outcome=outcome,
            last_error=None if error is None else error[:LONGEST_ERROR],
        )
        .returning(table)
    )


def _finish(
    work: Work, state: State, now: int, *, outcome: str, error: str | None, output: str | None
) -> ReturningUpdate[Any]:
    return (
        _held(work)
        .values(UNCLAIMED)
        .values(
            state=state,
            finished_at=now,
            output=output,
            progress=None,
            stop_reason=None,
            last_outcome=outcome,
            last_error=None if error is None else error[:LONGEST_ERROR],
        )
        .returning(table)
    )


def _waiting() -> dict[str, Any]:
    return {"state": "ENQUEUED", **UNCLAIMED}


def _held(work: Work) -> Update:
    """The row, while it is this run's."""
    return update(table).where(table.c.id == work.id, table.c.state == "RUNNING", table.c.fence == work.fence)


def _settle(connection: Connection, work: Work, statement: ReturningUpdate[Any]) -> Work:
    settled = _one(connection, statement)
    if settled is None:
        raise _lost(connection, work)
    return settled


def _lost(connection: Connection, work: Work) -> Stopped:
    row = get(connection, work.id)
    cancelled = row is not None and row.state == "CANCELLED" and row.fence == work.fence
    return Stopped("CANCELLED_BY_APP" if cancelled else "LEASE_EXPIRED", f"the work {work.id} is no longer this run's")


# --------------------------------------------------------------------------------------------------------- bell


def due(
    connection: Connection,
    now: int,
    *,
    ring_again_ms: int,
    limit: int,
    unheard: Collection[str] = (),
    queues: Collection[str] | None = None,
) -> list[Work]:
    """What is due and was not rung lately, oldest first. Ring for it, then `mark_rung`.

    unheard: queues in which messages still wait: work of theirs that was rung once is left out, however long ago.
    queues: of these alone; None: of all.
    """
    return _all(
        connection,
        select(table)
        .where(table.c.state == "ENQUEUED", table.c.due_at <= now)
        .where(table.c.rung_at <= now - ring_again_ms)
        .where(or_(table.c.rung_at == 0, table.c.queue.not_in(unheard)))
        .where(or_(literal(queues is None), table.c.queue.in_(queues or ())))
        .order_by(table.c.due_at, table.c.id)
        .limit(limit),
    )


def mark_rung(connection: Connection, ids: Collection[str], now: int) -> None:
    if ids:
        waiting = update(table).where(table.c.id == bindparam("work_id"), table.c.state == "ENQUEUED")
        connection.execute(waiting.values(rung_at=now), [{"work_id": work_id} for work_id in ids])


def next_due_at(connection: Connection, now: int) -> int | None:
    """When the next waiting work becomes due, later than now."""
    soonest = select(func.min(table.c.due_at)).where(table.c.state == "ENQUEUED", table.c.due_at > now)
    return connection.execute(soonest).scalar()


# --------------------------------------------------------------------------------------------------------- look


def get(connection: Connection, work_id: str) -> Work | None:
    return _one(connection, select(table).where(table.c.id == work_id))


def by_name(connection: Connection, name: str) -> Work | None:
    return _one(connection, select(table).where(table.c.name == name))


def query(
    connection: Connection,
    *,
    states: Collection[State] | None = None,
    task: str | None = None,
    tags: Collection[str] | None = None,
    limit: int = 1_000,
) -> list[Work]:
    """The work in any of the states, of the task, with any of the tags; in the order it was made."""
    statement = select(table)
    if states is not None:
        statement = statement.where(table.c.state.in_(states))
    if task is not None:
        statement = statement.where(table.c.task == task)
    if tags is not None:
        # Not LIKE, which takes upper and lower case for the same in SQLite.
        quoted = [msgspec.json.encode(tag).decode() for tag in tags]
        statement = statement.where(
            or_(False, *(func.replace(table.c.tags, tag, "") != table.c.tags for tag in quoted))
        )
    return _all(connection, statement.order_by(table.c.created_at, table.c.id).limit(limit))


def counts(connection: Connection) -> dict[str, int]:
    """How much work there is in each state that has any."""
    rows = connection.execute(select(table.c.state, func.count()).group_by(table.c.state))
    return {state: number for state, number in rows}  # noqa: C416 - a row is a tuple of its own type


def prune(connection: Connection, *, now: int, older_than_ms: int) -> int:
    """Forget what finished so long ago; returns how much. WorkManager counts from the start, this from the end."""
    old = delete_from(table).where(table.c.finished_at <= now - older_than_ms).returning(table.c.id)
    return len(connection.execute(old).all())


def _existing(connection: Connection, work_id: str) -> Work:
    return work_from_row(connection.execute(select(table).where(table.c.id == work_id)).mappings().one())


def _one(connection: Connection, statement: Any) -> Work | None:
    row = connection.execute(statement).mappings().one_or_none()
    return None if row is None else work_from_row(row)


def _all(connection: Connection, statement: Any) -> list[Work]:
    return [work_from_row(row) for row in connection.execute(statement).mappings()]
