"""backhaul.push, backhaul.pull, backhaul.reconcile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from celery import Task

from backhaul import eager
from backhaul.aimd import MUCH
from backhaul.clock import SystemClock
from backhaul.errors import DatabaseBusy, Refused, TableAltered
from backhaul.remotes.base import Remote
from backhaul.replica import pull, push, reconcile
from backhaul.replica.enrol import renew_if_harmless
from backhaul.replica.lanes import Lane
from backhaul.replica.pacing import lanes_in_use
from backhaul.replica.pull import Brought
from backhaul.replica.reconcile import Comparison
from backhaul.work import ledger
from backhaul.work.changes import noting
from backhaul.work.context import Context
from backhaul.work.run import Settled
from config import retry
from config.media import media_rules
from config.queues import declared
from config.schedule import lane_number, lane_work, pace_interval
from tasks import process
from tasks.base import in_reach, named, ring, ring_what_is_left, run_work, settings_of, told

Done = TypeVar("Done")


@named("backhaul.push")
def push_changes(task: Task, work_id: str, generation: int) -> str:
    """One of the lanes: which one is said by the work's id."""
    with in_reach():
        lane = _lane(task, work_id)
        _wake_if_pending(task, work_id, lane)
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
                lane=lane,
                batch=settings_of(task).sync.push_most_ops,
                arriving=noting(context.clock),
                brought=_fetching(task, context),
            ),
        )
        acked = sent.acked
        return {"acked": sent.acked, "parked": sent.parked}

    settled = run_work(task, work_id, generation, body)
    with suppress(DatabaseBusy):  # it has run, whatever comes after; Beat finds what is left
        if settled.kind == "done" and not lane.number:
            settled = _push_again_if_pending(task, settled)
        elif settled.kind == "done" and push.is_wanted(process.database(settings_of(task)), _first(lane), now=_now()):
            _wake_and_ring(task, "push")  # what this lane held up, or may not take, is the first one's
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
                limit=settings_of(task).sync.pull_most_records,
                on_reset=settings_of(task).sync.on_reset,
                arriving=noting(context.clock),
                brought=_fetching(task, context),
            ),
        )
        offered = received.offered
        _pace(task, context, received.records)
        return {"records": received.records, "position": received.position}

    settled = run_work(task, work_id, generation, body)
    ring_what_is_left(task, settled)
    if offered:
        _wake_and_ring(task, "push")
    return told(settled)


def _fetching(task: Task, context: Context) -> Brought:
    """Have the files come that the settings want here with the records that name them."""
    settings = settings_of(task)
    return eager.fetching(media_rules(settings), declared(settings), context.clock)


@named("backhaul.reconcile")
def reconcile_tables(task: Task, work_id: str, generation: int) -> str:
    def body(context: Context) -> dict[str, Any]:
        comparison = reconcile.reconcile(
            context.database,
            process.remote(settings_of(task)),
            clock=context.clock,
            context=context,
            arriving=noting(context.clock),
        )
        if comparison.moving is None:
            differing = any(not one.equal for one in comparison.tables)
            _pace(task, context, MUCH if differing else 0)
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
        if not renew_if_harmless(context.database, remote, rules=settings.rules):
            raise
        return journey(remote)


def _pace(task: Task, context: Context, changed: int) -> None:
    """That the next look comes sooner or later is worth no failure."""
    with suppress(DatabaseBusy), context.database.writing() as connection:
        pace_interval(connection, settings_of(task), context.work, changed=changed, now=context.clock.now())


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


def _lane(task: Task, work_id: str) -> Lane:
    """Of as many as are in use; one beyond them only ends what it has on its way, and the first one ends that of lanes
    that are no more."""
    number, of = lane_number(work_id), settings_of(task).sync.push_lanes
    if of == 1:
        return Lane(number=number, of=of)
    with process.database(settings_of(task)).reading() as connection:
        in_use = lanes_in_use(connection, of)
    if number >= in_use:
        return Lane(number=number, of=in_use)
    if number + 1 >= in_use:
        return Lane(number=number, of=of)
    return Lane(number=number, of=of, call=lambda: _wake_and_ring(task, lane_work(number + 1)))


def _first(lane: Lane) -> Lane:
    return Lane(of=lane.of)


def _wake_if_pending(task: Task, work_id: str, lane: Lane) -> None:
    """A message may come before the period has passed; with changes waiting, the push is due all the same."""
    database = process.database(settings_of(task))
    now = _now()
    with database.reading() as connection:
        sleeps = _sleeps(ledger.get(connection, work_id), now)
    if sleeps and push.is_wanted(database, lane, now=now):
        with database.writing() as connection:
            ledger.wake(connection, work_id, now)


def _sleeps(work: ledger.Work | None, now: int) -> bool:
    return work is not None and work.state == "ENQUEUED" and work.due_at > now


def _push_again_if_pending(task: Task, settled: Settled) -> Settled:
    """What was committed while the last batch was settled has rung for a push that was still running."""
    assert settled.work is not None
    database = process.database(settings_of(task))
    now = _now()
    if not push.is_wanted(database, Lane(of=settings_of(task).sync.push_lanes), now=now):
        return settled
    with database.writing() as connection:
        woken = ledger.wake(connection, settled.work.id, now)
    return Settled(settled.kind, woken, settled.reason, woken.due_at) if woken else settled


def _wake_and_ring(task: Task, work_id: str) -> None:
    """A hint: Beat finds what is due, when the database is in reach again."""
    woken = None
    with suppress(DatabaseBusy), process.database(settings_of(task)).writing() as connection:
        woken = ledger.wake(connection, work_id, _now())
    if woken is not None:
        ring(task.app, woken.ring)


def _now() -> int:
    return SystemClock().now()
