"""The clock guard: how far this machine's clock is from the server's, and what a clock that was set anew makes good.

The offset is measured with each exchange that came to an answer, and is good to half of its round trip. A change that
was captured while the clock was years off has the time that the clock had then; where only the offset of that time
makes it a time since this replica began, it is put right.
"""

from __future__ import annotations

from sqlalchemy import Connection

from backhaul.replica import checkpoint, outbox

LONGEST_TRIP_MS = 600_000  # no exchange takes so long: our own clock was set while it was under way
STEP_MS = 60_000  # an offset that moves by more says that one of the clocks was set


def measure(connection: Connection, *, server_now: int, asked_at: int, answered_at: int) -> None:
    """The server's clock minus ours, taking the middle of the exchange as the server's moment."""
    trip = answered_at - asked_at
    if not 0 <= trip <= LONGEST_TRIP_MS:
        return
    known = checkpoint.read(connection)
    before, after = known.clock_offset_ms, server_now - (asked_at + answered_at) // 2
    if abs(after - before) <= trip // 2:  # it says no more than the last one did
        after = before
    checkpoint.keep_offset(connection, after)
    if abs(after - before) > STEP_MS:
        outbox.mend_captured(connection, before=before, after=after, began=known.created_at, now=answered_at)
