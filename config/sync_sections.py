"""The sections of the settings that say how sync goes: its intervals and bounds, what is tried again and when, how
tables are merged, and how long work may take."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from backhaul.aimd import Bounds
from backhaul.bell import EXPEDITED_RUNS
from backhaul.lanes import MOST_LANES
from backhaul.replica.media_columns import Format, MediaColumn, OnFailure, Original, Visible
from backhaul.replica.pull import PAGE
from backhaul.replica.push import BATCH
from backhaul.replica.strategies import CHOICE, EVERY, Rules, Triggers
from backhaul.wire import MOST_OPS, MOST_PAGE, STRATEGIES, Deletes, KeyKind, strategy_name
from backhaul.work.ledger import MOST_LOSSES
from config.section import Section
from config.units import Duration


def _strategy(said: str) -> str:
    if strategy_name(said) not in STRATEGIES:
        raise ValueError(f"there is no strategy {said!r}; there are {CHOICE}")
    return said


Download = Literal["lazy", "eager"]


def _transform(said: str) -> str:
    if said not in ("", "image") and not re.fullmatch(r"[\w.]+:\w+", said):
        raise ValueError(f"{said!r} is neither image nor a function, as in shop.pictures:smaller")
    return said


ADAPTED = ("pull", "reconcile")
Strategy = Annotated[str, AfterValidator(_strategy)]


class Sync(Section):
    """Milliseconds. Changes of the app are pushed at once; `push_every` is only how long a lost hint can last.

    push_lanes: how many workers may push one outbox beside each other (PostgreSQL).
    pull_least, pull_most, reconcile_least, reconcile_most: what the usual interval, `..._every`, may shrink to while
    much changes, and stretch to while nothing does; None: a quarter, and four times. push_most_ops: of one message.
    pull_most_records: of one page.
    """

    push_every: Duration = 15 * 60_000
    push_flex: Duration = 0
    pull_every: Duration = 30_000
    pull_flex: Duration = 0
    reconcile_every: Duration = 12 * 3_600_000
    reconcile_flex: Duration = 3_600_000
    on_reset: Literal["recover", "discard"] = "recover"
    push_lanes: int = Field(default=1, ge=1, le=MOST_LANES)
    pull_least: Duration | None = None
    pull_most: Duration | None = None
    reconcile_least: Duration | None = None
    reconcile_most: Duration | None = None
    push_most_ops: int = Field(default=BATCH, ge=1, le=MOST_OPS)
    pull_most_records: int = Field(default=PAGE, ge=1, le=MOST_PAGE)

    @model_validator(mode="after")
    def _usual_within_its_bounds(self) -> Sync:
        for journey in ADAPTED:
            bounds, usual = self.bounds(journey), self.usual(journey)
            if not bounds.least <= usual <= bounds.most:
                raise ValueError(f"{journey}_every is to lie between {journey}_least and {journey}_most")
        return self

    def usual(self, journey: str) -> int:
        return int(getattr(self, f"{journey}_every"))

    def bounds(self, journey: str) -> Bounds:
        """What the interval of this journey stays within; that of a push is only for hints that were lost."""
        usual = self.usual(journey)
        if journey not in ADAPTED:
            return Bounds(least=usual, most=usual)
        least, most = getattr(self, f"{journey}_least"), getattr(self, f"{journey}_most")
        least = max(1, usual // 4) if least is None else least
        return Bounds(least=least, most=4 * usual if most is None else most)


class Retry(Section):
    """initial, most: milliseconds. jitter: 0 (none) to 1."""

    policy: Literal["exponential", "linear"] = "exponential"
    initial: Duration = 2_000
    most: Duration = 5 * 60_000
    jitter: float = Field(default=0.5, ge=0, le=1)


class RetryOfReconcile(Retry):
    initial: Duration = 30_000
    most: Duration = 5 * 3_600_000


class RetryOfUpload(Retry):
    initial: Duration = 10_000
    most: Duration = 3_600_000


class Retries(Section):
    push: Retry = Retry()
    pull: Retry = Retry()
    reconcile: RetryOfReconcile = RetryOfReconcile()
    upload: RetryOfUpload = RetryOfUpload()


class MediaOfTable(Section):
    """The files that a table's rows name in a column. folder: where they are; a relative one is the replica's own, and
    nothing outside of it is sent. sha256, size, type, name, orientation: the columns that the others are told in what
    the file holds. visible: whether they see a record before its file is on the server. transform: what is made of
    the file and sent in its place: `image`, or MODULE:FUNCTION. largest, format, quality: of the pictures. original:
    whether the file itself follows, and original_sha256, the column of its hash. on_failure: what is done where
    nothing can be made of it.

    download: whether the files that others name there are fetched when their records arrive; None: as
    `[media] download` says. A table of which nothing is sent from here has no column, but sha256 and download."""

    column: str | None = Field(default=None, min_length=1)
    folder: str = "."
    sha256: str = ""
    size: str = ""
    type: str = ""
    name: str = ""
    orientation: str = ""
    visible: Visible = "at-once"
    transform: Annotated[str, AfterValidator(_transform)] = ""
    largest: int = Field(default=2048, ge=1, le=65_535)
    format: Format = "jpeg"
    quality: int = Field(default=85, ge=1, le=100)
    original: Original = "never"
    original_sha256: str = ""
    on_failure: OnFailure = "original"
    download: Download | None = None

    @model_validator(mode="after")
    def _names_a_column(self) -> Self:
        if self.column is None and self.model_fields_set - {"column", "sha256", "download"}:
            raise ValueError("it has no column, the one in which the rows name their files")
        return self

    @property
    def rule(self) -> MediaColumn | None:
        """None where nothing is sent."""
        return MediaColumn(**self.model_dump(exclude={"download"})) if self.column else None


class TableSection(Section):
    """How one table's concurrent edits are merged. merge: one strategy for all columns, or column -> strategy, where
    `*` stands for those that are not named. aggregate: the table that this one's records are parts of. keys: how its
    keys come about, where `init` would choose another way. renamed: old column -> new, for columns that had another
    name when they were last synced. formerly: the names that the table had before. triggers: what the app's own do
    where records of others arrive. media: the files that its rows name."""

    merge: dict[str, Strategy] = Field(default_factory=dict)
    deletes: Deletes | None = None
    aggregate: str = ""
    renamed: dict[str, str] = Field(default_factory=dict)
    formerly: tuple[str, ...] = ()
    keys: KeyKind | None = None
    triggers: Triggers | None = None
    media: MediaOfTable | None = None

    @field_validator("merge", mode="before")
    @classmethod
    def _one_for_all(cls, said: Any) -> Any:
        return {EVERY: said} if isinstance(said, str) else said

    @field_validator("formerly", mode="before")
    @classmethod
    def _one_or_more(cls, said: Any) -> Any:
        return [said] if isinstance(said, str) else said

    @property
    def rules(self) -> Rules:
        return Rules(
            merge=self.merge,
            deletes=self.deletes,
            aggregate=self.aggregate,
            keys=self.keys,
            renamed=self.renamed,
            formerly=self.formerly,
            triggers=self.triggers,
            media=self.media.rule if self.media else None,
        )


class WorkSection(Section):
    """modules: what is imported for the functions that the host gives to `backhaul.work`. run_limit: how long a run may
    take before it is stopped (TIMEOUT). stop_grace: how long a function may go on after it was asked to stop. keep: how
    long finished work is kept. Milliseconds. expedited_runs: how many works may be expedited in an hour.
    most_losses: how often a function's own process may die before its work has failed.
    """

    modules: tuple[str, ...] = ()
    run_limit: Duration = 10 * 60_000
    stop_grace: Duration = 30_000
    keep: Duration = 7 * 86_400_000
    expedited_runs: int = Field(default=EXPEDITED_RUNS, ge=0)
    most_losses: int = Field(default=MOST_LOSSES, ge=1)
