"""Push: claim changes, send them, settle each by its own result; then feed the backfill; until nothing is left. (What a
batch is: batch.py.)

Where it may be cut, and why nothing is lost and nothing is doubled:

    before the claim commits       nothing happened
    after the claim                the changes are `sent`; when the lease has passed they go again, the same bytes
    after the server committed     the answer is lost; they go again, and the server answers `duplicate`
    before the settling commits    the same
    after the settling             done; the pull, once past their version, removes them
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from sqlalchemy import Connection

from backhaul.backoff import Backoff
from backhaul.clock import Clock
from backhaul.database import Database
from backhaul.errors import Busy, DatabaseBusy, Refused, SignInRequired, TryLater
from backhaul.lanes import lane_of
from backhaul.remotes.answers import TOO_LARGE
from backhaul.remotes.base import Remote
from backhaul.replica import (
    awaiting,
    backfill,
    checkpoint,
    clock_guard,
    dependents,
    following,
    holding,
    lanes,
    outbox,
    pull,
    recover,
    refill,
    tables,
)
from backhaul.replica.arriving import Arriving, untold
from backhaul.replica.batch import Unheard, claim, free_for, outgoing
from backhaul.replica.context import Context
from backhaul.replica.lanes import Lane
from backhaul.replica.outbox import Change
from backhaul.replica.pacing import Pacer
from backhaul.replica.recover import OnReset
from backhaul.telemetry import emit
from backhaul.wire import Pushed, Result, problem_name

BATCH = 1_000  # changes; a group goes whole, so a batch may hold more
RETRY = Backoff(initial_ms=1_000, most_ms=300_000, jitter=1.0)
CALL_EVERY = 8  # batches: who was called and found nothing free is called again, but not for each batch
COUNT_EVERY = 16  # batches: in between, what is left is what it was without what went
HEALS = 3  # of one run; what is not put right by then stays for the next
TOO_MUCH_OR_WRONG = (400, 413, 422)  # the message as a whole is refused: somewhere in it is the reason


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What one push did. acked and parked count changes."""

    acked: int = 0
    parked: int = 0


def push(
    database: Database,
    remote: Remote,
    *,
    clock: Clock,
    context: Context,
    batch: int = BATCH,
    retry: Backoff = RETRY,
    alone: bool = False,
    on_reset: OnReset = "recover",
    lane: Lane = lanes.ONLY,
    arriving: Arriving = untold,
    brought: pull.Brought = lambda _connection, _records: None,
) -> Sent:
    """Send everything that waits. Raises TableAltered, TryLater, SignInRequired, Refused, Stopped.

    alone: this run holds the lane's work, so what an earlier run left leased, when it was killed, goes again at once.
    lane: of several, each of which sends what no other has in hand; the first one does what is to be done once.
    on_reset, arriving, brought: of the pull, where one has to come first.
    """
    if alone:
        with database.writing() as connection:
            checkpoint.hold(connection)
            outbox.take_over(connection, lane.number)
    with suppress(DatabaseBusy):  # it is let go by the next run
        awaiting.release(database)
    hear = partial(pull.pull, clock=clock, context=context, on_reset=on_reset, arriving=arriving, brought=brought)
    recover.be_oneself(database, remote)
    acked = parked = heals = 0
    for other in _left_behind(database, lane):
        sent = push(
            database,
            remote,
            clock=clock,
            context=context,
            batch=batch,
            retry=retry,
            alone=alone,
            on_reset=on_reset,
            lane=other,
            arriving=arriving,
            brought=brought,
        )
        acked, parked = acked + sent.acked, parked + sent.parked
    limit, said, batches, left = batch, False, 0, 0
    pacer = Pacer(lane=lane, most_ops=batch)
    while True:
        context.check()
        try:
            changes = claim(database, lane, pacer, now=clock.now(), limit=limit)
        except Unheard:
            if lane.number:
                return Sent(acked=acked, parked=parked)
            hear(database, remote)
            continue
        if not changes and lane.number:
            return Sent(acked=acked, parked=parked)
        if not changes:
            if not _any_fresh(database) and backfill.advance(database, now=clock.now()):
                continue
            refill.refill(database, remote, now=clock.now())
            return Sent(acked=acked, parked=parked)
        if lane.call is not None and batches % CALL_EVERY == 0 and _any_fresh(database):
            lane.call()
        batches += 1
        asked_at = clock.now()
        try:
            reply = _exchange(database, remote, changes, pacer, clock=clock, retry=retry)
        except Refused as refusal:
            if heals < HEALS and recover.heal_push(database, remote, refusal, hear):
                heals += 1
                continue
            if refusal.status not in TOO_MUCH_OR_WRONG:
                raise
            limit = _narrow(database, changes, refusal, pacer, now=clock.now())
            continue
        unknown = frozenset[str]() if said else following.refused_unknowing(database, remote, changes, reply)
        said = said or bool(unknown)  # once a run: what is refused again stays refused
        accepted, refused = _settle(
            database, changes, reply, pacer, asked_at=asked_at, now=clock.now(), retry=retry, again=unknown
        )
        acked, parked = acked + accepted, parked + refused
        limit = min(batch, limit * 2)
        # Who counts what waits looks at all of it: for each batch, that would be more than the batch before long.
        left -= accepted + refused
        if left <= 0 or batches % COUNT_EVERY == 0:
            left = _left(database)
        context.progress({"done": acked + parked, "total": acked + parked + left})


def _left_behind(database: Database, lane: Lane) -> list[Lane]:
    """Lanes that there were more of once: what they have on its way is the first one's to end."""
    if lane.number or database.sqlite:
        return []
    with database.reading() as connection:
        return [Lane(number=number, of=lane.of) for number in lanes.left_behind(connection, lane.of)]


def _any_fresh(database: Database) -> bool:
    with database.reading() as connection:
        return outbox.any_fresh(connection)


def is_wanted(database: Database, lane: Lane, *, now: int) -> bool:
    """Whether a push in this lane would find something to send."""
    if any(is_wanted(database, other, now=now) for other in _left_behind(database, lane)):
        return True
    with database.reading() as connection:
        if not outbox.pending(connection, now, lane.number):
            return False
        if outbox.any_sent(connection, lane.number):
            return True
        free = free_for(connection, lane, tables.all_tracked(connection))
        try:
            return free is None or bool(outbox.next_pending(connection, BATCH, free=free))
        except outbox.GroupTooLarge:  # which the claim parks
            return True


def _exchange(
    database: Database, remote: Remote, changes: Sequence[Change], pacer: Pacer, *, clock: Clock, retry: Backoff
) -> Pushed:
    """Send; whatever the outcome, the changes are never left leased."""
    ops, replica = outgoing(database, changes)
    try:
        recover.speak_for(
            replica, remote
        )  # who may have become another since the run began, but not while this is leased
        reply = remote.push(ops)
    except TryLater as error:
        now = clock.now()
        wait = max(outbox.next_try(changes, retry, now), now + (error.retry_after_ms or 0))
        with database.writing() as connection:
            checkpoint.hold(connection)
            outbox.release(connection, changes, next_at=wait, error=str(error))
            pacer.failed(connection, changes, error, now=now)
        error.retry_after_ms = wait - now  # the work waits as long as its changes do
        raise
    except (SignInRequired, Refused) as error:
        with database.writing() as connection:
            checkpoint.hold(connection)
            outbox.release(connection, changes, next_at=0, error=str(error))
        raise
    emit("push.sent", ops=len(changes))
    return reply


def _settle(
    database: Database,
    changes: Sequence[Change],
    reply: Pushed,
    pacer: Pacer,
    *,
    asked_at: int,
    now: int,
    retry: Backoff,
    again: Collection[str] = (),
) -> tuple[int, int]:
    """Returns how many the server has taken, and how many it has refused. again: the ids of ops that it would
    not refuse any more, and gets once more. Raises Busy when it left some undecided."""
    # What is said twice, or of others, counts for nothing.
    results = {result.op: result for result in reversed(reply.results)}
    wait = 0
    with database.writing() as connection:
        checkpoint.hold(connection)
        clock_guard.measure(connection, server_now=reply.now, asked_at=asked_at, answered_at=now)
        undecided = outbox.settle(connection, changes, results, now=now)
        if undecided:
            drifted = all(_has_drifted(results.get(change.op_id)) for change in undecided)
            if not (drifted and outbox.restamp(connection, now=now, lane=lane_of(changes[0].send_seq))):
                wait = outbox.next_try(undecided, retry, now) - now
            outbox.release(connection, undecided, next_at=now + wait, error="no outcome yet")
        accepted = sum(_is_taken(results.get(change.op_id)) for change in changes)
        refused = len(changes) - len(undecided) - accepted
        if refused:
            _park_what_was_cut_off(connection, now=now)
            holding.settled(connection, tables.all_tracked(connection), results.values(), now=now)
            refused -= min(refused, following.resume(connection, again, now=now))
        checkpoint.pushed(connection, now)
        if accepted:
            pacer.taken(connection, changes, took_ms=now - asked_at, now=now)
    emit("push.settled", acked=accepted, refused=refused)
    if wait:
        raise Busy(f"the server has not decided about {len(undecided)} changes yet", retry_after_ms=wait)
    return accepted, refused


def _is_taken(result: Result | None) -> bool:
    return result is not None and result.status in ("applied", "duplicate")


def _has_drifted(result: Result | None) -> bool:
    return result is not None and result.problem is not None and problem_name(result.problem) == "clock-drift"


def _park_what_was_cut_off(connection: Connection, *, now: int) -> None:
    """What was sent beside a parked change in a message that was refused whole, and is not sent again yet: the server
    would not know that it depends on it."""
    tracked = tables.all_tracked(connection)
    while causes := dependents.find(connection, tracked, state="sent"):
        outbox.park_sent_dependents(connection, causes, now=now)


def _narrow(database: Database, changes: Sequence[Change], refusal: Refused, pacer: Pacer, *, now: int) -> int:
    """Half as many groups next time, until the one that is the reason stands alone; that one is parked."""
    groups = [list(group) for _, group in groupby(changes, key=lambda one: one.group_id or f"op {one.op_id}")]
    if len(groups) > 1:
        if refusal.status == TOO_LARGE:
            with database.writing() as connection:
                pacer.too_large(connection, changes, refusal, now=now)
        return sum(map(len, groups[: len(groups) // 2]))
    with database.writing() as connection:
        checkpoint.hold(connection)
        outbox.park_unsendable(connection, groups[0], reason=refusal.problem, detail=str(refusal), now=now)
        _park_what_was_cut_off(connection, now=now)
    emit("push.parked", ops=len(changes), reason=refusal.problem)
    return len(changes)


def _left(database: Database) -> int:
    with database.reading() as connection:
        return outbox.waiting(connection)
