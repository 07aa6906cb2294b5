"""The work there is, and what became of it. Owner of backhaul_work and its tables beside: nothing else writes them.

    BLOCKED ── what it waits for succeeds ──┐
                                            v
    enqueue ──────────────────────────> ENQUEUED ── claim ──> RUNNING ── succeed ──> SUCCEEDED  (periodic: ENQUEUED,
                                            ^                    │────── fail ─────> FAILED      a period is closed)
                                            │<── retry, stop, ───┤
                                            │  postpone, recover │
                  cancel, expire: of any of them, with all that waits for it ──────> CANCELLED
                  what waits for work that fails, fails

Each transition is guarded in its WHERE: what is not in the state it starts from is left alone. A run is known by its
fence, a number that every claim raises; who settles with an old one is told so (Stopped), and nothing is written.

The times follow WorkManager, with `enqueued_at` as the anchor of delays:
- a retry is due at its own time plus the backoff of the tries so far, and no sooner than the other side asked for;
- a period ends with success or failure, and the next run is due an interval later: completion time, no fixed grid;
- a stop is no try that failed. The attempt stays counted, the work stays due, and runs as soon as it may. WorkManager
  measures `enqueued_at + backoff(attempt)` here, almost always past, but for work that has been stopped ten times it
  is hours. Sync's own runs that have used up their time (TIMEOUT) have checkpointed, and get their attempt back;
- postponing gives the attempt back: a wait is not a failure;
- what waits for other work, or for a change, is due NEVER until that comes.

    asking        what there is                        claiming      from waiting to running
    enqueueing    new work, any number at once         running       what a run does to its own work
    uniqueness    names, and their policies            settling      how a run ends
    updating      other terms for the same work        losing        what died with its worker
    chaining      what waits for what                  interfering   what others do to it: cancel, expire, ...
    timing        when work is due                     pruning       what is forgotten
    triggering    work that waits for a change of data ringing       what is due, and the bell for it
    positions     how far the outbox was looked at     holding       who comes first; marks: moments kept by name
"""

from backhaul.work.ledger.asking import by_name, children_of, counts, get, inputs_of, latest, parents_of, query
from backhaul.work.ledger.claiming import claim, claim_and_see
from backhaul.work.ledger.enqueueing import Circumstances, Entry, Limits, enqueue, enqueue_all
from backhaul.work.ledger.interfering import (
    Ended,
    cancel,
    cancel_all,
    cancel_by_id,
    cancel_by_name,
    cancel_by_tag,
    expire,
    has_begun_ahead,
    has_expired,
    mend_clock,
    request_stop,
)
from backhaul.work.ledger.losing import LONGEST_LEASE_MS, MOST_LOSSES, WITH_ITS_WORKER, has_lost, outlived, recover
from backhaul.work.ledger.marks import CANCEL_ALL, mark, marked
from backhaul.work.ledger.positions import Move, Position, moves, number
from backhaul.work.ledger.pruning import prune
from backhaul.work.ledger.ringing import due, free_of, have_rung, mark_rung, next_due_at, wake
from backhaul.work.ledger.running import asked_to_stop, keep_checkpoint, renew, set_interval
from backhaul.work.ledger.settling import fail, is_last_attempt, move, postpone, retry, stop, succeed
from backhaul.work.ledger.triggering import (
    Watched,
    fire,
    hold_tables,
    mark_unanswered,
    touch_files,
    touch_tables,
    watched,
)
from backhaul.work.ledger.uniqueness import (
    Enqueued,
    OneTimePolicy,
    PeriodicPolicy,
    Policy,
    enqueue_named,
    enqueue_named_periodic,
    enqueue_unique,
)
from backhaul.work.ledger.updating import Applied, override_next_run, update_work
from backhaul.work.row import NEVER, State, Work

__all__ = [
    "CANCEL_ALL",
    "LONGEST_LEASE_MS",
    "MOST_LOSSES",
    "NEVER",
    "WITH_ITS_WORKER",
    "Applied",
    "Circumstances",
    "Ended",
    "Enqueued",
    "Entry",
    "Limits",
    "Move",
    "OneTimePolicy",
    "PeriodicPolicy",
    "Policy",
    "Position",
    "State",
    "Watched",
    "Work",
    "asked_to_stop",
    "by_name",
    "cancel",
    "cancel_all",
    "cancel_by_id",
    "cancel_by_name",
    "cancel_by_tag",
    "children_of",
    "claim",
    "claim_and_see",
    "counts",
    "due",
    "enqueue",
    "enqueue_all",
    "enqueue_named",
    "enqueue_named_periodic",
    "enqueue_unique",
    "expire",
    "fail",
    "fire",
    "free_of",
    "get",
    "has_begun_ahead",
    "has_expired",
    "has_lost",
    "have_rung",
    "hold_tables",
    "inputs_of",
    "is_last_attempt",
    "keep_checkpoint",
    "latest",
    "mark",
    "mark_rung",
    "mark_unanswered",
    "marked",
    "mend_clock",
    "move",
    "moves",
    "next_due_at",
    "number",
    "outlived",
    "override_next_run",
    "parents_of",
    "postpone",
    "prune",
    "query",
    "recover",
    "renew",
    "request_stop",
    "retry",
    "set_interval",
    "stop",
    "succeed",
    "touch_files",
    "touch_tables",
    "update_work",
    "wake",
    "watched",
]
