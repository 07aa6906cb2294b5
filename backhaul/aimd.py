"""How much at once, and how often: the arithmetic, and nothing else.

Additive increase, multiplicative decrease: what goes through adds a little, trouble takes half. It is the one linear
rule under which those who share a link come to an efficient and fair use of it, whoever began with how much (Chiu and
Jain, "Analysis of the increase and decrease algorithms for congestion avoidance in computer networks", 1989).

An interval is turned the same way round: nothing to do adds a part of the usual one, much to do takes half.
"""

from __future__ import annotations

from dataclasses import dataclass

QUICK_MS = 2_500  # an exchange that took less may have been larger
SLOW_MS = 10_000  # one that took more was too large for its link
SOFTLY = 8  # no step is more than one part in so many of what there is
CAREFULLY = 4  # a step is one part in so many of the usual one after an exchange that was neither quick nor slow
STEPS_OF_INTERVAL = 4  # in which an interval grows by the usual one
MUCH = 100  # records that one look brings: a look more often would have been of use


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """least, most: what a value stays within, 1 <= least <= most. steps: good exchanges from nothing to the most."""

    least: int = 1
    most: int
    steps: int = 200

    def within(self, value: int) -> int:
        return min(max(value, self.least), self.most)


def halved(value: int, bounds: Bounds) -> int:
    """After trouble."""
    return bounds.within(value // 2)


def grown(value: int, bounds: Bounds, *, part: int = 1) -> int:
    """After an exchange that went well. A small value takes smaller steps: what is beyond the bound of a server is
    refused, and a step of the usual size would be beyond it at every second try. part: of the step, one in so many."""
    return bounds.within(value + max(1, min(bounds.most // bounds.steps, value // SOFTLY) // part))


def after(value: int, used: int, took_ms: int, bounds: Bounds) -> int:
    """After an exchange that went through. used: how much it was of. One that used less than half of what it might have
    says nothing of more (RFC 7661); one that was slow is halved as it was. What is neither quick nor slow may be so for
    the way's length, not for its own: with steps of nothing there, one bad hour would never be made up for."""
    if took_ms > SLOW_MS:
        return min(value, halved(used, bounds))
    if 2 * used < value:
        return bounds.within(value)
    return grown(value, bounds, part=1 if took_ms < QUICK_MS else CAREFULLY)


def interval_after(interval: int, *, usual: int, bounds: Bounds, changed: int, since_ms: int) -> int:
    """After a look that found so many changes. since_ms: since the interval was last decided. A look out of turn that
    finds nothing is no sign: only a whole interval without a change is."""
    if changed >= MUCH:
        return bounds.within(interval // 2)
    if changed and interval > usual:
        return bounds.within(usual)
    longer = interval + max(1, usual // STEPS_OF_INTERVAL)
    if changed:
        return bounds.within(min(longer, usual))
    return bounds.within(interval if 0 <= since_ms < interval else longer)
