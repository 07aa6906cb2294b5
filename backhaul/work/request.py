"""A unit of work before it is a row, as the ledger is told it. What a host asks for is built into one of these by
OneTimeWork and PeriodicWork; sync's own work, which may be as short and as frequent as it needs, is one from the start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from os import urandom
from typing import Any, Literal, get_args

from backhaul.backoff import Backoff
from backhaul.errors import Misused
from backhaul.work.adjusting import LONGEST_MS
from backhaul.work.conditions import is_label, known_condition
from backhaul.work.constraints import Trigger
from backhaul.work.data import encode_data

MERGERS = ("overwriting", "array_creating")  # see mergers.py
CELERY_TASK = "backhaul.task"  # runs a plain Celery task of the host, by its name
Policy = Literal["exponential", "linear"]
POLICIES = get_args(Policy)
ORDINARY_BACKOFF = Backoff()
_TASK = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_WORD = re.compile(r"[\w.:/@+-]{1,200}")


@dataclass(frozen=True, kw_only=True)
class WorkRequest:
    """One piece of work. Raises Misused at build.

    task: the Celery task that runs it ("backhaul.upload", or a worker function's name); function: for "backhaul.task",
    the plain Celery task's name. id: a fresh one when none is given; an id that exists already is not enqueued again.
    name: of unique work. requires: constraint tags, all of which must hold before and during the run. tags: to find
    and cancel it by. input: a JSON object of at most 10 KiB; input_text: its text,
    where it is known. interval_ms: 0 for one-time work; flex_ms: the end of the
    first interval in which the first run may start (0: at once). initial_delay_ms: before the first run. begin_at: not
    before. override_at: of periodic work, when its next run is due, whatever else says. expires_after_ms: from now;
    cancelled unless it has begun by then. max_attempts: after so many tries a retry is a failure; None: no limit.
    merger: how parents' outputs come to the input. triggers: it waits until one of these has changed.
    """

    task: str
    id: str | None = None
    function: str | None = None
    name: str | None = None
    requires: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    input: Mapping[str, Any] = field(default_factory=dict)
    input_text: str = field(default="", repr=False, compare=False)
    interval_ms: int = 0
    flex_ms: int = 0
    initial_delay_ms: int = 0
    begin_at: int | None = None
    override_at: int | None = None
    expires_after_ms: int | None = None
    backoff: Backoff = ORDINARY_BACKOFF
    backoff_on_stop: bool = False
    max_attempts: int | None = None
    expedited: Literal["run_as_ordinary", "drop"] | None = None
    merger: str | None = None
    triggers: tuple[Trigger, ...] = ()
    trigger_update_ms: int | None = None
    trigger_most_ms: int | None = None

    @property
    def kind(self) -> str:
        """By what queues are designated for it."""
        return self.function or self.task

    def __post_init__(self) -> None:
        if self.id is None:
            object.__setattr__(self, "id", fresh_id())
        self._check_names()
        self._check_tags()
        self._check_times()
        if not self.input_text:
            object.__setattr__(self, "input_text", encode_data("input", self.input))

    def _check_names(self) -> None:
        if not _is_task(self.task):
            raise Misused(f"{self.task!r} is no task name", hint="name a task, as in backhaul.upload")
        if (self.task == CELERY_TASK) != (self.function is not None):
            raise Misused(
                f"a plain task is given for {CELERY_TASK}, and for no other", hint="OneTimeWork.of_task('shop.send')"
            )
        if self.function is not None and not is_word(self.function):
            raise Misused(f"{self.function!r} is no name of a Celery task", hint="OneTimeWork.of_task('shop.send')")
        if self.merger not in (None, *MERGERS) and not (_is_task(str(self.merger)) and "." in self.merger):
            known = " or ".join(MERGERS)
            raise Misused(f"there is no merger {self.merger!r}", hint=f"{known}, or a function's path, as in shop.sums")
        for what, word in (("id", self.id), ("name", self.name)):
            if word is not None and not is_word(word):
                raise Misused(f"{word!r} is no {what} of work", hint="1 to 200 letters, digits and . : / @ + - _")

    def _check_tags(self) -> None:
        for tag in self.requires:
            if not is_label(tag):
                known_condition(tag)
        for tag in (*self.requires, *self.tags):
            if not is_word(tag):
                raise Misused(f"{tag!r} is no tag", hint="1 to 200 letters, digits and . : / @ + - _")

    def _check_times(self) -> None:
        for what, said in (
            *(("interval_ms", self.interval_ms), ("flex_ms", self.flex_ms)),
            ("initial_delay_ms", self.initial_delay_ms),
        ):
            if not 0 <= said <= LONGEST_MS:
                raise Misused(f"{what} is {said}", hint=f"between 0 and {LONGEST_MS} milliseconds")
        if self.initial_delay_ms + self.interval_ms > LONGEST_MS:
            raise Misused("it would begin in more than ten years", hint="a shorter initial_delay")
        if self.expires_after_ms is not None and not self.initial_delay_ms < self.expires_after_ms <= LONGEST_MS:
            raise Misused("it would expire before it may begin", hint="expires_after is longer than initial_delay")
        if self.override_at is not None and not self.interval_ms:
            raise Misused("only periodic work has a next run to override", hint="begin_at for one-time work")
        if self.flex_ms > self.interval_ms:
            raise Misused("flex_ms is longer than interval_ms", hint="flex is the last part of the interval, or 0")
        if self.max_attempts is not None and (type(self.max_attempts) is not int or self.max_attempts < 1):
            raise Misused(f"max_attempts is {self.max_attempts!r}", hint="1 or more, or None for no limit")
        if self.backoff is not ORDINARY_BACKOFF:
            self._check_backoff()

    def _check_backoff(self) -> None:
        backoff = self.backoff
        if not (0 < backoff.initial_ms <= backoff.most_ms <= LONGEST_MS and 0 <= backoff.jitter <= 1):
            raise Misused("the backoff makes no sense", hint="0 < initial_ms <= most_ms, and jitter between 0 and 1")
        if backoff.policy not in POLICIES:
            raise Misused(f"there is no backoff {backoff.policy!r}", hint=f"policy: {' or '.join(POLICIES)}")


def fresh_id() -> str:
    """Random, as a UUID of version 4 is, and made in a fifth of its time."""
    return urandom(16).hex()


@lru_cache(maxsize=1_000)
def _is_task(said: str) -> bool:
    """A program has few of them, and many works of each."""
    return _TASK.fullmatch(said) is not None


def is_word(said: object) -> bool:
    return isinstance(said, str) and _WORD.fullmatch(said) is not None
