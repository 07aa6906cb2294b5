"""What one-time and periodic work have in common, as a host asks for it: an immutable value, refused when it is built
if it makes no sense."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, Self

from backhaul.backoff import Backoff
from backhaul.errors import Misused
from backhaul.work.adjusting import milliseconds, raised, words
from backhaul.work.constraints import NONE, Constraints
from backhaul.work.data import encoded
from backhaul.work.functions import Function
from backhaul.work.naming import arguments, host_task
from backhaul.work.request import ORDINARY_BACKOFF, WorkRequest, fresh_id

NO_DELAY = timedelta(0)
LEAST_BACKOFF_MS, MOST_BACKOFF_MS = 10_000, 5 * 3_600_000


@dataclass(frozen=True)
class HostWork:
    """The fields mean what OneTimeWork says of them."""

    worker: Function | str
    _: KW_ONLY
    input: Mapping[str, Any] = field(default_factory=dict, hash=False)
    constraints: Constraints = NONE
    tags: Iterable[str] = ()
    initial_delay: timedelta = NO_DELAY
    backoff: Backoff | None = None
    max_attempts: int | None = None
    backoff_on_stop: bool = False
    plain_task: bool = False
    id: str = field(default_factory=fresh_id)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", words("tags", self.tags))
        # As it was when the work was built: what its maker writes into it later does not reach the work.
        text, own = encoded("input", self.input)
        object.__setattr__(self, "input", own)
        object.__setattr__(self, "_input_text", text)
        _ = self.request

    @classmethod
    def of_task(
        cls, name: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **asked: Any
    ) -> Self:
        """A plain Celery task of the host as work, by its name, with its arguments. asked: as for other work."""
        return cls(name, input=arguments(args, kwargs), plain_task=True, **asked)

    @cached_property
    def request(self) -> WorkRequest:
        """As the ledger is told."""
        raise NotImplementedError  # it is one_time.py and periodic.py that say it; nobody makes this one itself

    def _terms(self) -> dict[str, Any]:
        """Of the request, what both kinds say."""
        task, function = host_task(self.worker, plain=self.plain_task)
        constraints = self.constraints
        delay = self.initial_delay
        return {
            "task": task,
            "function": function,
            "id": self.id,
            "requires": constraints.tags,
            "tags": self.tags,
            "input": self.input,
            "input_text": self._input_text,  # type: ignore[attr-defined]
            "initial_delay_ms": 0 if delay is NO_DELAY else milliseconds("initial_delay", delay),
            "backoff": checked_backoff(self.backoff, constraints),
            "backoff_on_stop": self.backoff_on_stop,
            "max_attempts": self.max_attempts,
            "triggers": constraints.triggers,
            "trigger_update_ms": constraints.trigger_update_ms,
            "trigger_most_ms": constraints.trigger_most_ms,
        }


def checked_backoff(asked: Backoff | None, constraints: Constraints) -> Backoff:
    """Within WorkManager's bounds, 10 s to 5 h. Raises Misused where it would never be used: beside device_idle."""
    if asked is None:
        return ORDINARY_BACKOFF
    if not isinstance(asked, Backoff):
        raise Misused(f"backoff is {asked!r}", hint="Backoff(initial_ms=30_000)")
    if constraints.device_idle:
        raise Misused("work for an idle device has no backoff", hint="leave backoff or device_idle out")
    initial = raised("backoff.initial_ms", asked.initial_ms, LEAST_BACKOFF_MS, MOST_BACKOFF_MS)
    most = raised("backoff.most_ms", asked.most_ms, initial, MOST_BACKOFF_MS)
    return replace(asked, initial_ms=initial, most_ms=most)
