"""What a host asks of the machine that runs its work: constraints, all of which must hold before and during the run.

WorkManager's, by its names: a network of a kind, charging, battery not low, device idle, storage not low, and data that
has changed. Beside these, labels: what a machine is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from backhaul.errors import Misused
from backhaul.work.adjusting import LONGEST_MS, milliseconds, raised, words
from backhaul.work.conditions import is_label

Network = Literal["not_required", "connected", "unmetered", "not_roaming", "metered", "temporarily_unmetered"]

# Each kind is a connected one, and `metered` demands a metered link: it does not merely allow one.
NETWORKS: dict[str, frozenset[str]] = {
    "not_required": frozenset(),
    "connected": frozenset({"connected"}),
    "unmetered": frozenset({"connected", "unmetered"}),
    "temporarily_unmetered": frozenset({"connected", "unmetered"}),
    "not_roaming": frozenset({"connected", "not_roaming"}),
    "metered": frozenset({"connected", "metered"}),
}
CONDITIONS = ("charging", "battery_not_low", "device_idle", "storage_not_low", "not_quiet", "budget")
UPDATE_DELAY_MS = 10_000
LEAST_UPDATE_DELAY_MS = 500
MOST_DELAY_MS = 120_000
LEAST_MOST_DELAY_MS = 1_000


@dataclass(frozen=True)
class TableTrigger:
    """The rows of a synced table have changed, by this app or by sync."""

    table: str


@dataclass(frozen=True)
class FileTrigger:
    """A file, or a folder's list of names, has changed, come or gone. descendants: and all that is under the folder."""

    path: str | Path
    descendants: bool = False


Trigger = TableTrigger | FileTrigger


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """None by default. Raises Misused at build.

    network: of this kind. not_quiet: outside the quiet hours. budget: while there are bytes left for a metered link.
    labels: as in "region:eu". triggers: the work runs once one of these has changed; it runs no sooner than
    `trigger_update_delay` after the latest change (10 s, at least 0.5 s), and no later than `trigger_max_delay` after
    the first (2 min, at least 1 s). One run consumes the triggers: enqueue it anew to go on.
    """

    network: Network = "not_required"
    charging: bool = False
    battery_not_low: bool = False
    device_idle: bool = False
    storage_not_low: bool = False
    not_quiet: bool = False
    budget: bool = False
    labels: frozenset[str] = field(default_factory=frozenset)
    triggers: tuple[Trigger, ...] = ()
    trigger_update_delay: timedelta | None = None
    trigger_max_delay: timedelta | None = None

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise Misused(f"there is no network {self.network!r}", hint=f"one of {', '.join(get_args(Network))}")
        for name in CONDITIONS:
            if not isinstance(getattr(self, name), bool):
                raise Misused(f"{name} is {getattr(self, name)!r}", hint=f"{name}=True, or leave it out")
        object.__setattr__(self, "labels", words("labels", self.labels))
        given: object = self.triggers
        if not isinstance(given, Iterable):
            raise Misused(f"triggers is {given!r}", hint='triggers=(TableTrigger("photo"),)')
        object.__setattr__(self, "triggers", tuple(dict.fromkeys(given)))
        for label in self.labels:
            if not is_label(label):
                raise Misused(f"{label!r} is no label", hint="a label has a colon, as in region:eu")
        for trigger in self.triggers:
            _check(trigger)
        if (self.trigger_update_delay is not None or self.trigger_max_delay is not None) and not self.triggers:
            raise Misused("there is a delay of triggers, and no trigger", hint="Constraints(triggers=(...,))")
        _ = self.trigger_update_ms, self.trigger_most_ms

    @cached_property
    def tags(self) -> frozenset[str]:
        """As the ledger keeps them: conditions and labels."""
        return NETWORKS[self.network] | self.labels | {name for name in CONDITIONS if getattr(self, name)}

    @cached_property
    def trigger_update_ms(self) -> int | None:
        if not self.triggers:
            return None
        if self.trigger_update_delay is None:
            return UPDATE_DELAY_MS
        said = milliseconds("trigger_update_delay", self.trigger_update_delay)
        return raised("trigger_update_delay", said, LEAST_UPDATE_DELAY_MS, LONGEST_MS)

    @cached_property
    def trigger_most_ms(self) -> int | None:
        if not self.triggers:
            return None
        if self.trigger_max_delay is None:
            return max(MOST_DELAY_MS, self.trigger_update_ms or 0)
        said = milliseconds("trigger_max_delay", self.trigger_max_delay)
        return raised("trigger_max_delay", said, LEAST_MOST_DELAY_MS, LONGEST_MS)


NONE = Constraints()


def _check(trigger: Trigger) -> None:
    if isinstance(trigger, TableTrigger) and trigger.table:
        return
    if isinstance(trigger, FileTrigger) and Path(trigger.path).is_absolute() and "\0" not in str(trigger.path):
        return
    raise Misused(f"{trigger!r} is no trigger", hint='TableTrigger("photo"), FileTrigger("/an/absolute/path")')
