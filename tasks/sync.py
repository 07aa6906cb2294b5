"""backhaul.push, backhaul.pull, backhaul.reconcile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from celery import Task

from backhaul.clock import SystemClock
from backhaul.errors import Refused, TableAltered
from backhaul.remotes.base import Remote
from backhaul.replica import outbox, pull, push, reconcile
from backhaul.replica.enrol import renew_if_harmless
from backhaul.replica.reconcile import Comparison
from backhaul.work import ledger
from backhaul.work.run import Context, Settled
from config import retry
from tasks import process
from tasks.base import named, ring, ring_what_is_left, run_work, settings_of, told

Done = TypeVar("Done")


@named("backhaul.push")
def push_changes(task: Task, work_id: str, generation: int) -> str:
    acked = 0

    def body(context: Context) -> dict[str, Any]:
        nonlocal acked
        policy = retry.policy(settings_of(task), "push")
        sent = _renewing(
            task,
            context,
            lambda remote: push.push(
                context.database,
                remote,
                clock=context.clock,
                context=context,
                retry=policy,
                alone=True,
                on_reset=settings_of(task).sync.on_reset,
            ),
        )
        acked = sent.acked
        return {"acked": sent.acked, "parked": sent.parked}

    _wake_if_pending(task, work_id)
    settled = run_work(task, work_id, generation, body)
    if settled.kind == "done":
        settled = _push_again_if_pending(task, settled)
    ring_what_is_left(task, settled)
    if acked:
        _wake_and_ring(task, "pull")
    return told(settled)


@named("backhaul.pull")
def pull_changes(task: Task, work_id: str, generation: int) -> str:
    offered = 0

    def body(context: Context) -> dict[str, Any]:
        nonlocal offered
        received = _renewing(
            task,
            context,
            lambda remote: pull.pull(
                context.database,
                remote,
                clock=context.clock,
                context=context,
                on_reset=settings_of(task).sync.on_reset,
            ),
        )
        offered = received.offered
        return {"records": received.records, "position": received.position}

    settled = run_work(task, work_id, generation, body)
    ring_what_is_left(task, settled)
    if offered:
        _wake_and_ring(task, "push")
    return told(settled)


@named("backhaul.reconcile")
def reconcile_tables(task: Task, work_id: str, generation: int) -> str:
    def body(context: Context) -> dict[str, Any]:
        comparison = reconcile.reconcile(
            context.database, process.remote(settings_of(task)), clock=context.clock, context=context
        )
        return _judged(comparison)

    settled = run_work(task, work_id, generation, body)
    ring_what_is_left(task, settled)
    return told(settled)


def _renewing(task: Task, context: Context, journey: Callable[[Remote], Done]) -> Done:
    """The journey; and once more, after tables have grown that need no person to be synced as they are now."""
    settings = settings_of(task)
    remote = process.remote(settings)
    try:
        return journey(remote)
    except TableAltered:
        rules = {name: section.rules for name, section in settings.tables.items()}
        if not renew_if_harmless(context.database, remote, rules=rules):
            raise
        return journey(remote)


def _judged(comparison: Comparison) -> dict[str, Any]:
    """A difference is a failure with a reason, so that it is seen; a feed that moves is none."""
    differing = [one.table for one in comparison.tables if not one.equal]
    if comparison.moving is None and differing:
        raise Refused(
            f"the server and this replica differ in {', '.join(differing)}",
            hint="backhaul verify shows the counts",
            problem="tables-differ",
        )
    return {"tables": len(comparison.tables), "equal": comparison.equal, "moving": comparison.moving}


def _wake_if_pending(task: Task, work_id: str) -> None:
    """A message may come before the period has passed; with changes waiting, the push is due all the same."""
    database = process.database(settings_of(task))
    now = SystemClock().now()
    with database.reading() as connection:
        wanted = outbox.pending(connection, now) and _sleeps(ledger.get(connection, work_id), now)
    if wanted:
        with database.writing() as connection:
            ledger.wake(connection, work_id, now)


def _sleeps(work: ledger.Work | None, now: int) -> bool:
    return work is not None and work.state == "ENQUEUED" and work.due_at > now


def _push_again_if_pending(task: Task, settled: Settled) -> Settled:
    """What was committed while the last batch was settled has rung for a push that was still running."""
    assert settled.work is not None
    database = process.database(settings_of(task))
    now = SystemClock().now()
    with database.reading() as connection:
        pending = outbox.pending(connection, now)
    if not pending:
        return settled
    with database.writing() as connection:
        woken = ledger.wake(connection, settled.work.id, now)
    return Settled(settled.kind, woken, settled.reason, woken.due_at) if woken else settled


def _wake_and_ring(task: Task, work_id: str) -> None:
    with process.database(settings_of(task)).writing() as connection:
        woken = ledger.wake(connection, work_id, SystemClock().now())
    if woken is not None:
        ring(task.app, woken.ring)
