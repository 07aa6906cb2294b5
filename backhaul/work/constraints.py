"""Constraints: whether work may run here and now, and which queue it belongs to.

A tag is a condition (`unmetered`: what the machine must satisfy now) or a label (`region:eu`: what it is). All tags
of a work must hold; it goes to the smallest declared queue whose tags contain them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from backhaul.bell import Queue
from backhaul.clock import iso
from backhaul.errors import WorkUnplaceable
from backhaul.work.conditions import Condition, is_label, known_condition

# WorkManager's stop reasons. The network's four conditions are one reason there, and here.
STOP_REASONS = {
    "connected": "CONSTRAINT_CONNECTIVITY",
    "unmetered": "CONSTRAINT_CONNECTIVITY",
    "metered": "CONSTRAINT_CONNECTIVITY",
    "not_roaming": "CONSTRAINT_CONNECTIVITY",
    "charging": "CONSTRAINT_CHARGING",
    "battery_not_low": "CONSTRAINT_BATTERY_NOT_LOW",
    "device_idle": "CONSTRAINT_DEVICE_IDLE",
    "storage_not_low": "CONSTRAINT_STORAGE_NOT_LOW",
}


@dataclass(frozen=True)
class Verdict:
    """open: every tag holds. reason: one phrase for each tag that does not; empty when open. closed: those tags."""

    open: bool
    reason: str
    closed: tuple[str, ...] = ()

    @property
    def stop_reason(self) -> str:
        """How WorkManager calls the first tag that does not hold; a label lost is a change of the device's state."""
        return STOP_REASONS.get(self.closed[0], "DEVICE_STATE") if self.closed else ""


def judge(tags: Iterable[str], conditions: Mapping[str, Condition], labels: frozenset[str]) -> Verdict:
    """Whether every tag holds. Raises Misused for a tag that is no label and no known condition."""
    closed = tuple(tag for tag in sorted(tags) if not _holds(tag, conditions, labels))
    return Verdict(not closed, "; ".join(_phrase(tag, conditions) for tag in closed), closed)


def place(queues: Sequence[Queue], requires: frozenset[str]) -> Queue:
    """The smallest queue whose tags contain what is required; of equals, the one declared first.

    Raises WorkUnplaceable, with the fix, when there is none.
    """
    fitting = [queue for queue in queues if queue.tags >= requires]
    if not fitting:
        raise _unplaceable(queues, requires)
    return min(fitting, key=lambda queue: len(queue.tags))


def _holds(tag: str, conditions: Mapping[str, Condition], labels: frozenset[str]) -> bool:
    return tag in labels if is_label(tag) else conditions[known_condition(tag)].value


def _phrase(tag: str, conditions: Mapping[str, Condition]) -> str:
    if is_label(tag):
        return f"this machine is not labelled {tag}"
    condition = conditions[tag]
    since = f", since {iso(condition.since)}" if condition.since is not None else ""
    return f"{tag} is off ({condition.source}{since})"


def _unplaceable(queues: Sequence[Queue], requires: frozenset[str]) -> WorkUnplaceable:
    wanted = ", ".join(sorted(requires))
    if not queues:
        return WorkUnplaceable("no queue is declared", hint="declare one in backhaul.toml, under [queues]")
    nearest = max(queues, key=lambda queue: len(queue.tags & requires))
    missing = ", ".join(sorted(requires - nearest.tags))
    return WorkUnplaceable(
        f"no declared queue has all of the tags that the work requires: {wanted}",
        hint=f"in backhaul.toml, add {missing} to the tags of queue {nearest.name}, or declare a queue with {wanted}",
    )
