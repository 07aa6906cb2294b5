"""Push: claim changes, send them, settle each by its own result; then feed the backfill; until nothing is left.

Where it may be cut, and why nothing is lost and nothing is doubled:

    before the claim commits       nothing happened
    after the claim                the changes are `sent`; when the lease has passed they go again, the same bytes
    after the server committed     the answer is lost; they go again, and the server answers `duplicate`
    before the settling commits    the same
    after the settling             done; the pull, once past their version, removes them
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from msgspec import UNSET, Raw
from sqlalchemy import Connection

from backhaul.backoff import Backoff
from backhaul.clock import Clock, stamp_to_text
from backhaul.database import Database
from backhaul.errors import Busy, Refused, SignInRequired, TryLater
from backhaul.remotes import endpoint
from backhaul.remotes.answers import TOO_LARGE
from backhaul.remotes.base import Remote
from backhaul.replica import (
    backfill,
    checkpoint,
    clock_guard,
    conflicts,
    deltas,
    dependents,
    holding,
    outbox,
    pull,
    recover,
    refill,
    tables,
)
from backhaul.replica.context import Context
from backhaul.replica.outbox import Change
from backhaul.replica.recover import OnReset
from backhaul.replica.tables import Tracked
from backhaul.telemetry import emit
from backhaul.wire import OutgoingOp, Pushed, Result, problem_name

BATCH = 1_000  # changes; a group goes whole, so a batch may hold more
LEASE_MS = 120_000  # well over the longest a remote may take to answer
RETRY = Backoff(initial_ms=1_000, most_ms=300_000, jitter=1.0)
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
) -> Sent:
    """Send everything that waits. Raises TableAltered, TryLater, SignInRequired, Refused, Stopped.

    alone: this run holds the push's work, so what an earlier run left leased, when it was killed, goes again at once.
    """
    if alone:
        with database.writing() as connection:
            checkpoint.hold(connection)
            outbox.take_over(connection)
    recover.be_oneself(database, remote)
    acked = parked = heals = 0
    limit = batch
    while True:
        context.check()
        changes = _claim(database, now=clock.now(), limit=limit)
        if not changes:
            if backfill.advance(database, now=clock.now()):
                continue
            refill.refill(database, remote, now=clock.now())
            return Sent(acked=acked, parked=parked)
        asked_at = clock.now()
        try:
            reply = _exchange(database, remote, changes, clock=clock, retry=retry)
        except Refused as refusal:
            heals += 1
            if heals <= HEALS and recover.heal_push(database, remote, refusal):
                continue
            if refusal.problem == "cursor-expired" and heals <= HEALS:  # first hear what is gone
                pull.pull(database, remote, clock=clock, context=context, on_reset=on_reset)
                continue
            if refusal.status not in TOO_MUCH_OR_WRONG:
                raise
            limit = _narrow(database, changes, refusal, now=clock.now())
            continue
        accepted, refused = _settle(database, changes, reply, asked_at=asked_at, now=clock.now(), retry=retry)
        acked, parked = acked + accepted, parked + refused
        limit = min(batch, limit * 2)
        _report(database, context, acked, parked)


def _claim(database: Database, *, now: int, limit: int) -> list[Change]:
    with database.writing() as connection:
        checkpoint.hold(connection)
        tracked = tables.checked(connection)
        endpoint.check(connection, now)
        checkpoint.clear_stale_mark(connection)
        learned = endpoint.sizes(connection)
        limit, most_bytes = min(limit, learned.ops or limit), learned.size or endpoint.MOST_BYTES
        merged = deltas.tables_with_deltas(one.table for one in tracked)
        while True:
            try:
                if merged:
                    rows = outbox.next_pending(connection, limit, most_bytes)
                    deltas.park_unusable(connection, merged, rows, now=now)
                _park_dependents(connection, tracked, now=now, limit=limit, most_bytes=most_bytes)
                return outbox.claim(
                    connection,
                    now=now,
                    limit=limit,
                    lease_ms=LEASE_MS,
                    most_bytes=most_bytes,
                    freeze=partial(deltas.freeze, connection, merged) if merged else None,
                )
            except outbox.GroupTooLarge as found:
                outbox.park_group(connection, found.first, reason="group-too-large", detail=str(found), now=now)


def _park_dependents(
    connection: Connection, tracked: Sequence[Tracked], *, now: int, limit: int, most_bytes: int
) -> None:
    """Look at what the claim would take until it takes nothing that depends on a parked change or on a conflict."""
    while _any_held_back(connection) and (rows := outbox.next_pending(connection, limit, most_bytes)):
        ids = [row.id for row in rows]
        holding.unsee(connection, tracked, first=min(ids), last=max(ids))
        causes = dependents.find(connection, tracked, first=min(ids), last=max(ids))
        if causes:
            outbox.park_dependents(connection, causes, now=now)
        elif not holding.hold_pending(connection, tracked, now=now, first=min(ids), last=max(ids)):
            return


def _any_held_back(connection: Connection) -> bool:
    return outbox.any_parked(connection) or outbox.any_conflict(connection) or conflicts.any_live(connection)


def _exchange(database: Database, remote: Remote, changes: Sequence[Change], *, clock: Clock, retry: Backoff) -> Pushed:
    """Send; whatever the outcome, the changes are never left leased."""
    outgoing = _outgoing_all(database, changes)
    try:
        reply = remote.push(outgoing)
    except TryLater as error:
        now = clock.now()
        wait = max(outbox.next_try(changes, retry, now), now + (error.retry_after_ms or 0))
        _release(database, changes, next_at=wait, error=str(error))
        error.retry_after_ms = wait - now  # the work waits as long as its changes do
        raise
    except (SignInRequired, Refused) as error:
        _release(database, changes, next_at=0, error=str(error))
        raise
    emit("push.sent", ops=len(changes))
    return reply


def _release(database: Database, changes: Sequence[Change], *, next_at: int, error: str) -> None:
    with database.writing() as connection:
        checkpoint.hold(connection)
        outbox.release(connection, changes, next_at=next_at, error=error)


def _settle(
    database: Database, changes: Sequence[Change], reply: Pushed, *, asked_at: int, now: int, retry: Backoff
) -> tuple[int, int]:
    """Returns how many the server has taken, and how many it has refused. Raises Busy when it left some undecided."""
    results: dict[str, Result] = {}
    for result in reply.results:  # what is said twice, or of others, counts for nothing
        results.setdefault(result.op, result)
    wait = 0
    with database.writing() as connection:
        checkpoint.hold(connection)
        clock_guard.measure(connection, server_now=reply.now, asked_at=asked_at, answered_at=now)
        undecided = outbox.settle(connection, changes, results, now=now)
        if undecided:
            drifted = all(_has_drifted(results.get(change.op_id)) for change in undecided)
            if not (drifted and outbox.restamp(connection, now=now)):
                wait = outbox.next_try(undecided, retry, now) - now
            outbox.release(connection, undecided, next_at=now + wait, error="no outcome yet")
        accepted = sum(_is_taken(results.get(change.op_id)) for change in changes)
        refused = len(changes) - len(undecided) - accepted
        if refused:
            _park_what_was_cut_off(connection, now=now)
            holding.settled(connection, tables.all_tracked(connection), results.values(), now=now)
        checkpoint.pushed(connection, now)
        if accepted:
            endpoint.went_through(connection, most_ops=BATCH, most_bytes=endpoint.MOST_BYTES)
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


def _narrow(database: Database, changes: Sequence[Change], refusal: Refused, *, now: int) -> int:
    """Half as many groups next time, until the one that is the reason stands alone; that one is parked."""
    groups = [list(group) for _, group in groupby(changes, key=lambda one: one.group_id or f"op {one.op_id}")]
    if len(groups) > 1:
        if refusal.status == TOO_LARGE:
            with database.writing() as connection:
                endpoint.too_large(connection, ops=len(changes), size=sum(map(outbox.size_of, changes)))
        return sum(map(len, groups[: len(groups) // 2]))
    with database.writing() as connection:
        checkpoint.hold(connection)
        outbox.park_unsendable(connection, groups[0], reason=refusal.problem, detail=str(refusal), now=now)
        _park_what_was_cut_off(connection, now=now)
    emit("push.parked", ops=len(changes), reason=refusal.problem)
    return len(changes)


def _outgoing_all(database: Database, changes: Sequence[Change]) -> list[OutgoingOp]:
    with database.reading() as connection:
        former_id = checkpoint.read(connection).former_id
        unsent = frozenset(backfill.remaining(connection))
    return [_outgoing(change, former=change.id <= former_id, early=change.table_name in unsent) for change in changes]


def _outgoing(change: Change, *, former: bool, early: bool) -> OutgoingOp:
    return OutgoingOp(
        op=change.op_id,
        seq=change.send_seq,
        table=change.table_name,
        key=Raw(change.key),
        kind=change.kind,
        hlc=stamp_to_text(change.hlc),
        base=change.base,
        group=change.group_id,
        fields=UNSET if change.fields is None or change.kind == "delete" else Raw(change.fields),
        former=former,
        early=early and change.kind == "update",
    )


def _report(database: Database, context: Context, acked: int, parked: int) -> None:
    with database.reading() as connection:
        left = outbox.waiting(connection)
    context.progress({"done": acked + parked, "total": acked + parked + left})
