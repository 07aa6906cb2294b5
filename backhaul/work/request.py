"""What a host asks for: a unit of work, before it is a row. Everything that can be wrong with it is found at build."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from backhaul.backoff import Backoff
from backhaul.errors import Misused
from backhaul.work.conditions import is_label, known_condition
from backhaul.work.data import encode_data

HOST_TASK = "backhaul.work"  # runs a function of the host, by its registered name
LONGEST_MS = 10 * 366 * 86_400_000  # ten years: beyond it a number of milliseconds is a mistake
_TASK = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_WORD = re.compile(r"[\w.:/@+-]{1,200}")  # no quote and no comma: tags are searched in their JSON text


@dataclass(frozen=True, kw_only=True)
class WorkRequest:
    """One piece of work. Raises Misused at build.

    task: the task that runs it ("backhaul.upload"); function: for "backhaul.work", the host's registered function.
    id: a fresh one when none is given; an id that exists already is not enqueued again. name: of unique work.
    requires: constraint tags, all of which must hold before and during the run. tags: to find and cancel it by.
    input: a JSON object of at most 10 KiB. interval_ms: 0 for one-time work; flex_ms: the end of the first interval
    in which the first run may start (0: at once). initial_delay_ms: before the first run.
    max_attempts: after so many tries a retry is a failure; None, as in WorkManager: no limit.
    """

    task: str
    id: str | None = None
    function: str | None = None
    name: str | None = None
    requires: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    input: dict[str, Any] = field(default_factory=dict)
    interval_ms: int = 0
    flex_ms: int = 0
    initial_delay_ms: int = 0
    backoff: Backoff = field(default_factory=Backoff)
    max_attempts: int | None = None

    def __post_init__(self) -> None:
        if self.id is None:
            object.__setattr__(self, "id", uuid4().hex)
        self._check_names()
        self._check_tags()
        self._check_times()
        encode_data("input", self.input)

    def _check_names(self) -> None:
        if not _TASK.fullmatch(self.task):
            raise Misused(f"{self.task!r} is no task name", hint="name a task, as in backhaul.work")
        if (self.task == HOST_TASK) != (self.function is not None):
            raise Misused(
                "a function is given for the task backhaul.work, and for no other",
                hint="WorkRequest(task='backhaul.work', function='...')",
            )
        for what, word in (("id", self.id), ("name", self.name)):
            if word is not None and not _WORD.fullmatch(word):
                raise Misused(f"{word!r} is no {what} of work", hint="1 to 200 letters, digits and . : / @ + - _")

    def _check_tags(self) -> None:
        for tag in self.requires:
            if not is_label(tag):
                known_condition(tag)
        for tag in self.requires | self.tags:
            if not _WORD.fullmatch(tag):
                raise Misused(f"{tag!r} is no tag", hint="1 to 200 letters, digits and . : / @ + - _")

    def _check_times(self) -> None:
        for what in ("interval_ms", "flex_ms", "initial_delay_ms"):
            if not 0 <= getattr(self, what) <= LONGEST_MS:
                raise Misused(f"{what} is {getattr(self, what)}", hint=f"between 0 and {LONGEST_MS} milliseconds")
        if self.flex_ms > self.interval_ms:
            raise Misused("flex_ms is longer than interval_ms", hint="flex is the last part of the interval, or 0")
        if self.max_attempts is not None and self.max_attempts < 1:
            raise Misused(f"max_attempts is {self.max_attempts}", hint="1 or more, or None for no limit")
        backoff = self.backoff
        if not (0 < backoff.initial_ms <= backoff.most_ms <= LONGEST_MS and 0 <= backoff.jitter <= 1):
            raise Misused("the backoff makes no sense", hint="0 < initial_ms <= most_ms, and jitter between 0 and 1")
