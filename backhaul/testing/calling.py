"""One worker function, called by itself: no row, no database, no clock.

done = call(report, input={"year": 2026}, attempt=2)
assert done.result == Result.success({"pages": 3})
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backhaul.errors import Misused, SignInRequired, Stopped, TryLater
from backhaul.work.context import Context
from backhaul.work.data import decode_data, encode_data
from backhaul.work.functions import Function
from backhaul.work.result import Result


@dataclass(frozen=True, kw_only=True)
class Call:
    """What became of a call. result: None when the function was stopped by `check` or `progress`. progress: all that
    was said, in order. checkpoint: the last one that was kept. waited: the seconds that it asked to wait, in all."""

    result: Result | None
    progress: list[dict[str, Any]] = field(default_factory=list)
    checkpoint: dict[str, Any] | None = None
    waited: float = 0.0
    stopped: str | None = None


def call(
    function: Function,
    *,
    input: Mapping[str, Any] | None = None,  # noqa: A002 - as the context calls it
    attempt: int = 0,
    is_last_attempt: bool = False,
    tags: Iterable[str] = (),
    triggered: Iterable[str] = (),
    checkpoint: Mapping[str, Any] | None = None,
    stop: str | None = None,
    stop_after: int = 0,
    id: str = "called",  # noqa: A002 - the same
) -> Call:
    """Call it as a worker would. Raises what the function raises, but for TryLater and SignInRequired, which are a
    retry, and Stopped; Misused for data that work could not carry.

    attempt: 0 on the first try. checkpoint: of a run before. stop: a stop reason that it is asked to stop with;
    stop_after: how often it may look (`stopped`, `check`, `progress`, `wait`) before that. Nothing sleeps: `wait`
    returns at once, and counts.
    """
    told = _Told(
        id=id,
        attempt=attempt,
        is_last_attempt=is_last_attempt,
        tags=frozenset(tags),
        triggered=tuple(triggered),
        stop=stop,
        stop_after=stop_after,
    )
    context = _Called(told, decode_data(encode_data("input", input or {})), _copied("checkpoint", checkpoint))
    try:
        result: Result | None = _result(function(context))
    except Stopped:
        result = None
    except TryLater as later:
        after = later.retry_after_ms
        result = Result(kind="retry", reason=str(later), after_ms=after)
    except SignInRequired as later:
        result = Result(kind="retry", reason=str(later))
    return Call(
        result=result,
        progress=context.said,
        checkpoint=context.checkpointed,
        waited=context.waited,
        stopped=context.stop_reason,
    )


@dataclass(frozen=True, kw_only=True)
class _Told:
    id: str
    attempt: int
    is_last_attempt: bool
    tags: frozenset[str]
    triggered: tuple[str, ...]
    stop: str | None
    stop_after: int


class _Called(Context):
    """A context without a row."""

    def __init__(self, told: _Told, given: dict[str, Any], checkpoint: dict[str, Any] | None) -> None:
        self.input = given
        self.said: list[dict[str, Any]] = []
        self.waited = 0.0
        self._told = told
        self._kept = checkpoint
        self._looks_left = told.stop_after

    @property
    def id(self) -> str:
        return self._told.id

    @property
    def attempt(self) -> int:
        return self._told.attempt

    @property
    def is_last_attempt(self) -> bool:
        return self._told.is_last_attempt

    @property
    def tags(self) -> frozenset[str]:
        return self._told.tags

    @property
    def triggered(self) -> tuple[str, ...]:
        return self._told.triggered

    @property
    def elapsed(self) -> int:
        return int(self.waited * 1000)

    @property
    def checkpointed(self) -> dict[str, Any] | None:
        return self._kept

    def checkpoint(self, value: Mapping[str, Any] | None) -> None:
        self._kept = _copied("checkpoint", value)

    def progress(self, value: Mapping[str, Any]) -> None:
        self.said.append(decode_data(encode_data("progress", value)))
        self.check()

    @property
    def stopped(self) -> bool:
        return self._look()

    @property
    def stop_reason(self) -> str | None:
        return self._told.stop if self._looks_left < 0 else None

    def wait(self, seconds: float) -> bool:
        self.waited += seconds
        return self._look()

    def check(self, *, force: bool = False) -> None:  # noqa: ARG002 - it always looks
        if self._look():
            raise Stopped(str(self._told.stop))

    def look(self) -> None:
        self._look()

    def _look(self) -> bool:
        if self._told.stop is None:
            return False
        self._looks_left -= 1
        return self._looks_left < 0


def _copied(what: str, value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if value is None else decode_data(encode_data(what, value))


def _result(returned: object) -> Result:
    if returned is None or isinstance(returned, Mapping):
        returned = Result.success(returned)
    if not isinstance(returned, Result):
        raise Misused(f"it returned a {type(returned).__name__}, which is no result", hint="a Result, a dict or None")
    encode_data("output", returned.output)
    return returned
