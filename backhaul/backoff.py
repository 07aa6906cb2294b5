"""How long to wait before the next try.

WorkManager's two policies (exponential: delay * 2^(n-1); linear: delay * n; n counts the tries so far), capped, and
with optional jitter. Full jitter draws between half and the whole of the delay, so that a fleet that lost its server
does not come back as one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

MOST_DOUBLINGS = 40  # beyond this every delay is capped anyway, and 2**n need not be computed


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """policy: how delays grow. initial_ms, most_ms: milliseconds. jitter: 0 (none) to 1 (all of the half)."""

    policy: Literal["exponential", "linear"] = "exponential"
    initial_ms: int = 30_000
    most_ms: int = 5 * 3_600_000
    jitter: float = 0.0

    def delay_ms(self, tries: int, *, draw: float | None = None) -> int:
        """The wait after the given number of tries (1 or more). draw: 0 to 1, instead of a random number."""
        tries = max(1, tries)
        if self.policy == "linear":
            delay = self.initial_ms * tries
        else:
            delay = self.initial_ms * 2 ** min(tries - 1, MOST_DOUBLINGS)
        delay = min(delay, self.most_ms)
        chance = random.random() if draw is None else draw  # noqa: S311 - jitter is no secret
        return delay - int(delay * self.jitter * chance / 2)
