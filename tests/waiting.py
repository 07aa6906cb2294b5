"""Waiting for a condition, with a bound: the one place in the tests that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")
PATIENCE = 4  # a crowded machine is slow, and only a failure waits as long as it may


def eventually(check: Callable[[], Found], timeout: float = 10.0, what: str = "", pause: float = 0.02) -> Found:
    """The first true answer of `check`. Raises AssertionError, naming `what`, when it has not come long after
    `timeout` seconds, which are meant for a machine that has nothing else to do."""
    timeout *= PATIENCE
    end = time.monotonic() + timeout
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout:g} s: {what or getattr(check, '__name__', 'the condition')}")
        time.sleep(pause)
