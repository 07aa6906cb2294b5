"""RUNNING -> ...: what becomes of work when its run ends, under the run's fence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, and_, bindparam, case, func, null, update
from sqlalchemy.sql.dml import ReturningUpdate

from backhaul.schema import work as table
from backhaul.work.data import encode_data
from backhaul.work.ledger import triggering
from backhaul.work.ledger.asking import get, one
from backhaul.work.ledger.chaining import fail_dependents, hold, unblock
from backhaul.work.ledger.running import UNCLAIMED, held, lost
from backhaul.work.ledger.timing import LEAST_BETWEEN_OVERRIDES_MS
from backhaul.work.row import NEVER, State, Work

LONGEST_ERROR = 1_000  # characters kept of an error's text
# After the first try expedited work is ordinary work.
ORDINARY: Mapping[str, Any] = {"queue": func.coalesce(table.c.ordinary_queue, table.c.queue), "expedited": 0}
# What the claim of a run that does not begin has changed.
NOT_BEGUN: Mapping[str, Any] = {
    "attempt": table.c.attempt - 1,
    "started_at": table.c.started_before,
    "stop_reason": table.c.stopped_before,
}
# The run has been heard of to its end.
NONE_LOST: Mapping[str, Any] = {"losses": 0, "crashes": 0}

_now = bindparam("now", type_=BigInteger)
_FINISH = (
    update(table)
    .where(table.c.id == bindparam("the_id"), table.c.state == "RUNNING", table.c.fence == bindparam("the_fence"))
    .values(UNCLAIMED)
    .values(
        state=bindparam("the_state"),
        finished_at=_now,
        output=bindparam("the_output"),
        progress=None,
        checkpoint=None,
        **NONE_LOST,
        stop_reason=None,
        last_outcome=bindparam("the_outcome"),
        last_error=bindparam("the_error"),
    )
    .returning(table)
)


def succeed(connection: Connection, work: Work, *, now: int, output: Mapping[str, Any] | None = None) -> Work:
    """The run has done it. The output is kept; that of periodic work is not, as in WorkManager. What waited for this
    as for the last begins to wait for its time."""
    if work.periodic:
        return _close_period(connection, work, now, outcome="success", error=None)
    text = None if output is None else encode_data("output", output)
    hold_with_dependents(connection, work)
    settled = _finish(connection, work, "SUCCEEDED", now, outcome="success", error=None, output=text)
    if settled.children:
        unblock(connection, work.id, now)
    return settled


def fail(connection: Connection, work: Work, *, now: int, error: str, output: Mapping[str, Any] | None = None) -> Work:
    """The run could not do it, and another try would not either. Periodic work runs again after its interval; what
    waits for one-time work fails with it."""
    if work.periodic:
        return _close_period(connection, work, now, outcome="failure", error=error)
    text = None if output is None else encode_data("output", output)
    hold_with_dependents(connection, work)
    settled = _finish(connection, work, "FAILED", now, outcome="failure", error=error, output=text)
    if settled.children:
        fail_dependents(connection, [work.id], now)
    return settled


def retry(
    connection: Connection,
    work: Work,
    *,
    now: int,
    error: str,
    retry_after_ms: int | None = None,
    exactly: bool = False,
) -> Work:
    """The same again later: after the backoff, and no sooner than asked. After the last attempt it is a failure.

    exactly: just when it is asked, whatever the backoff.
    """
    if is_last_attempt(work):
        return fail(connection, work, now=now, error=error)
    asked = retry_after_ms or 0
    delay = asked if exactly else max(work.backoff.delay_ms(work.attempt), asked)
    values = waiting() | {
        "retries": table.c.retries + 1,
        **NONE_LOST,
        "enqueued_at": now,
        "due_at": _at_override(work, now, else_=now + delay),
        "override_at": _override_left(work),
        "stop_reason": None,
        "progress": None,
        "last_error": error[:LONGEST_ERROR],
        "last_outcome": "retry",
    }
    return _settle(connection, work, held(work).values(values).returning(table))


def is_last_attempt(work: Work) -> bool:
    """Whether a run of this that asks for another will have failed: stops and crashes are no tries."""
    return work.max_attempts is not None and work.retries + 1 >= work.max_attempts


def stop(connection: Connection, work: Work, *, now: int, reason: str) -> Work:
    """The run was asked to stop, and has checkpointed: it stays due, with its progress (on the attempt: the ledger)."""
    again = now + work.backoff.delay_ms(work.attempt)
    gives_back = reason == "TIMEOUT" and work.ours
    values = waiting() | {
        "due_at": _at_override(work, now, else_=again if work.backoff_on_stop else _no_later_than(now)),
        "enqueued_at": now if work.backoff_on_stop else table.c.enqueued_at,
        "attempt": work.attempt - 1 if gives_back else work.attempt,
        **NONE_LOST,
        "stop_reason": reason,
        "last_outcome": "stopped",
    }
    return _settle(connection, work, held(work).values(values).returning(table))


def postpone(connection: Connection, work: Work, *, now: int, due_at: int) -> Work:
    """The run did not begin: not before `due_at`, and it does not count.

    One that stays due counts as rung just now, or the bell and the worker would play ball with it.
    """
    values = {
        "state": "ENQUEUED",
        **UNCLAIMED,
        "due_at": due_at,
        "rung_at": now if due_at <= now else 0,
        **NOT_BEGUN,
    }
    return _settle(connection, work, held(work).values(values).returning(table))


def move(connection: Connection, work: Work, *, queue: str, now: int) -> Work:
    """The run did not begin: the work is another queue's, and waits there, due as it was."""
    values = {
        "state": "ENQUEUED",
        **UNCLAIMED,
        "queue": queue,
        "ordinary_queue": None,
        "expedited": 0,
        "due_at": _no_later_than(now),
        **NOT_BEGUN,
    }
    return _settle(connection, work, held(work).values(values).returning(table))


def waiting() -> dict[str, Any]:
    return {"state": "ENQUEUED", **UNCLAIMED, **ORDINARY}


def _no_later_than(now: int) -> Any:
    return case((table.c.due_at > now, now), else_=table.c.due_at)


def _close_period(connection: Connection, work: Work, now: int, *, outcome: str, error: str | None) -> Work:
    said = None if error is None else error[:LONGEST_ERROR]
    values = period_closed(now, outcome, _set_while_it_ran(work)) | {"last_error": said}
    settled = _settle(connection, work, held(work).values(values).returning(table))
    if settled.trigger_update_ms is None:
        return settled
    triggering.consumed(connection, [work.id])
    return get(connection, work.id) or settled


def period_closed(now: int, outcome: str, set_while_it_ran: ColumnElement[bool]) -> dict[str, Any]:
    """set_while_it_ran: whether the row's override was; it is for the next run then, and one from before is used up."""
    woken = table.c.due_at > table.c.started_at  # while it ran; see ringing.py, _run_again
    after = case((table.c.trigger_update_ms.is_not(None), NEVER), else_=now + table.c.interval_ms)
    short = table.c.interval_ms < LEAST_BETWEEN_OVERRIDES_MS
    least = now + case((short, table.c.interval_ms), else_=LEAST_BETWEEN_OVERRIDES_MS)
    at = case((table.c.override_at > least, table.c.override_at), else_=least)
    return {
        "state": "ENQUEUED",
        **UNCLAIMED,
        "attempt": 0,
        "retries": 0,
        **NONE_LOST,
        "runs": table.c.runs + 1,
        "enqueued_at": now,
        "due_at": case((woken, now), (set_while_it_ran, at), else_=after),
        "override_at": case((set_while_it_ran, table.c.override_at), else_=null()),
        "progress": None,
        "checkpoint": None,
        "triggered": None,
        "stop_reason": None,
        "last_outcome": outcome,
    }


def _set_while_it_ran(work: Work) -> Any:
    return and_(table.c.override_generation != work.override_generation, table.c.override_at.is_not(None))


def _override_left(work: Work) -> Any:
    """One that was set while the work ran is for the run after this; one from before is used up."""
    return case((_set_while_it_ran(work), table.c.override_at), else_=null())


def _at_override(work: Work, now: int, *, else_: Any) -> Any:
    least = now + min(LEAST_BETWEEN_OVERRIDES_MS, work.interval_ms)
    later = case((table.c.override_at > least, table.c.override_at), else_=least)
    at = table.c.override_at if work.runs == 0 else later
    return case((_set_while_it_ran(work), at), else_=else_)


def _finish(
    connection: Connection, work: Work, state: State, now: int, *, outcome: str, error: str | None, output: str | None
) -> Work:
    values = {
        "the_id": work.id,
        "the_fence": work.fence,
        "the_state": state,
        "the_output": output,
        "the_outcome": outcome,
        "the_error": None if error is None else error[:LONGEST_ERROR],
        "now": now,
    }
    return _settled(connection, work, one(connection, _FINISH, values))


def hold_with_dependents(connection: Connection, work: Work) -> None:
    """Before a run of a chain settles; see chaining.py."""
    if work.children:
        hold(connection, table.c.id == work.id, and_dependents=True)


def _settle(connection: Connection, work: Work, statement: ReturningUpdate[Any]) -> Work:
    return _settled(connection, work, one(connection, statement))


def _settled(connection: Connection, work: Work, settled: Work | None) -> Work:
    if settled is None:
        raise lost(connection, work)
    return settled
