"""What a worker function says of its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from backhaul.work.adjusting import milliseconds


@dataclass(frozen=True, kw_only=True)
class Result:
    """Returned by a worker function: `Result.success({"pages": 3})`, `Result.failure(reason="...")`, `Result.retry()`.

    A function that returns None or a dict has succeeded, with that as its output. An exception is a failure, no retry;
    but for TryLater, which says that it is one.
    """

    kind: Literal["success", "failure", "retry"]
    output: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    after_ms: int | None = None
    exactly: bool = False  # of a plain Celery task's retry: then, whatever the backoff

    @staticmethod
    def success(output: Mapping[str, Any] | None = None) -> Result:
        """output: a JSON object of at most 10 KiB, which what waits for this work gets as its input."""
        return Result(kind="success", output=dict(output or {}))

    @staticmethod
    def failure(output: Mapping[str, Any] | None = None, *, reason: str = "") -> Result:
        """For good: what waits for this work fails, too. The output can still be read."""
        return Result(kind="failure", output=dict(output or {}), reason=reason)

    @staticmethod
    def retry(*, after: timedelta | None = None, reason: str = "") -> Result:
        """Again, after the backoff, and no sooner than `after`."""
        return Result(kind="retry", reason=reason, after_ms=None if after is None else milliseconds("after", after))
