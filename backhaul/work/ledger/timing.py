"""When work is due, as WorkManager reckons it: pure functions of a request, or of a row, and of a moment."""

from __future__ import annotations

from backhaul.clock import iso
from backhaul.errors import Misused
from backhaul.work.request import WorkRequest
from backhaul.work.row import NEVER, Work

LEAST_BETWEEN_OVERRIDES_MS = 900_000


def first_due(request: WorkRequest, now: int) -> int:
    """Of work that begins to wait now. Flex moves the first run only; all later ones are measured from the end of the
    one before."""
    if request.triggers:
        return NEVER
    if request.override_at is not None:
        return request.override_at
    window = request.interval_ms - request.flex_ms if request.flex_ms else 0
    return max(now + request.initial_delay_ms + window, request.begin_at or 0)


def expiry(request: WorkRequest, since: int) -> int | None:
    """Until when the work is to have begun; None: it does not expire. since: when it was first enqueued. Raises Misused
    for what may not begin before that."""
    if request.expires_after_ms is None:
        return None
    at = since + request.expires_after_ms
    if request.begin_at is not None and request.begin_at >= at:
        raise Misused(
            f"begin_at is {iso(request.begin_at)}, and by expires_after it is cancelled at {iso(at)}, before it began",
            hint="a longer expires_after, or an earlier begin_at",
        )
    return at


def due_anew(work: Work, old_due: int) -> int:
    """Of waiting work whose specification, or whose override, has just changed: measured from when it last began to
    wait. old_due: kept by what was stopped or lost, for that is due whatever its specification says."""
    if work.override_at is not None:
        least = work.enqueued_at + min(LEAST_BETWEEN_OVERRIDES_MS, work.interval_ms)
        return work.override_at if work.runs == 0 else max(work.override_at, least)
    if work.attempt > 0:
        backing_off = work.last_outcome == "retry"
        return work.enqueued_at + work.backoff.delay_ms(work.attempt, draw=0.0) if backing_off else old_due
    if work.trigger_update_ms is not None:
        return NEVER
    if work.runs > 0:
        return work.enqueued_at + work.interval_ms
    window = work.interval_ms - work.flex_ms if work.flex_ms else 0
    return max(work.enqueued_at + work.initial_delay_ms + window, work.begin_at or 0)
