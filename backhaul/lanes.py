"""Numbers of a push: which lane one belongs to, and which one of that lane it is.

A replica that pushes in several lanes numbers each of them without gaps, and the server keeps a mark for each. The lane
stands in the bits above the count, so that a number is still one integer, and no two of a replica are alike; they stay
below 2^53, which a double holds exactly (RFC 8259, section 6).
"""

from __future__ import annotations

MOST_LANES = 16
COUNT_BITS = 48


def lane_of(number: int) -> int:
    """0 to 15, for every number that a replica gives out."""
    return number >> COUNT_BITS


def before_first(lane: int) -> int:
    """What stands for "none yet" of a lane: its first number is the one after this."""
    return lane << COUNT_BITS


def last_of(lane: int) -> int:
    """The highest number that the lane can have."""
    return before_first(lane + 1) - 1
