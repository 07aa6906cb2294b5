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
from backhaul.work.conditions import IMPLIED, Condition, is_label, known_condition
from backhaul.work.functions import present_name

# WorkManager's stop reasons. The network's four conditions are one reason there, and here; a person's pause is a stop
# by the user, and bytes that are used up are a quota.
STOP_REASONS = {
    "connected": "CONSTRAINT_CONNECTIVITY",
    "unmetered": "CONSTRAINT_CONNECTIVITY",
    "metered": "CONSTRAINT_CONNECTIVITY",
    "not_roaming": "CONSTRAINT_CONNECTIVITY",
    "charging": "CONSTRAINT_CHARGING",
    "battery_not_low": "CONSTRAINT_BATTERY_NOT_LOW",
    "device_idle": "CONSTRAINT_DEVICE_IDLE",
    "storage_not_low": "CONSTRAINT_STORAGE_NOT_LOW",
    "not_paused": "USER",
    "budget": "QUOTA",
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
    """Whether every tag holds, and those that are implied. Raises Misused for a tag that is no label and no known
    condition."""
    demanded = dict.fromkeys([*sorted(tags), *(tag for tag in IMPLIED if tag in conditions)])
    closed = tuple(tag for tag in demanded if not _holds(tag, conditions, labels))
    return Verdict(not closed, "; ".join(_phrase(tag, conditions) for tag in closed), closed)


def place(queues: Sequence[Queue], requires: frozenset[str], kind: str = "") -> Queue:
    """The smallest queue whose tags contain what is required; of equals, the one declared first.

    kind: the work's function, or task; one that queues are designated for goes to these alone. Raises WorkUnplaceable,
    with the fix, when there is none.
    """
    ordinary = [queue for queue in designated(queues, kind) if not queue.expedited]
    fitting = [queue for queue in ordinary if queue.tags >= requires.difference(IMPLIED)]
    if not fitting:
        raise _unplaceable(ordinary, requires, kind if any(_names(queue, kind) for queue in queues) else "")
    return min(fitting, key=lambda queue: len(queue.tags))


def place_expedited(queues: Sequence[Queue], requires: frozenset[str], kind: str = "") -> Queue:
    """For the first try of expedited work: the smallest fitting one of those queues, else as `place` says."""
    expedited = [queue for queue in designated(queues, kind) if queue.expedited]
    fitting = [queue for queue in expedited if queue.tags >= requires.difference(IMPLIED)]
    return min(fitting, key=lambda queue: len(queue.tags)) if fitting else place(queues, requires, kind)


def designated(queues: Sequence[Queue], kind: str) -> list[Queue]:
    """Those that work of this kind may run on: the ones that name it, or all, if none does."""
    return [queue for queue in queues if _names(queue, kind)] or list(queues)


def may_run(queues: Sequence[Queue], queue: str, kind: str) -> bool:
    """Whether work of this kind may run on this queue. A queue that is not declared here knows nothing of kinds."""
    named = [one.name for one in queues if _names(one, kind)]
    return not named or queue in named


def _names(queue: Queue, kind: str) -> bool:
    """Whether the queue is designated for this kind, under whichever of its function's names."""
    return kind in queue.kinds or present_name(kind) in map(present_name, queue.kinds)


def _holds(tag: str, conditions: Mapping[str, Condition], labels: frozenset[str]) -> bool:
    return tag in labels if is_label(tag) else conditions[known_condition(tag)].value


def _phrase(tag: str, conditions: Mapping[str, Condition]) -> str:
    if is_label(tag):
        return f"this machine is not labelled {tag}"
    condition = conditions[tag]
    since = f", since {iso(condition.since)}" if condition.since is not None else ""
    return f"{tag} is off ({condition.who}{since})"


def _unplaceable(queues: Sequence[Queue], requires: frozenset[str], kind: str) -> WorkUnplaceable:
    """queues: that it may go to. kind: empty, if that is any."""
    wanted = ", ".join(sorted(requires))
    if kind and not queues:
        return WorkUnplaceable(
            f"{kind} runs on queues for expedited work alone", hint=f"name {kind} in the kinds of another queue, too"
        )
    if not queues:
        return WorkUnplaceable("no queue is declared", hint="declare one in backhaul.toml, under [queues]")
    nearest = max(queues, key=lambda queue: len(queue.tags & requires))
    missing = ", ".join(sorted(requires - nearest.tags))
    if kind:
        names = ", ".join(queue.name for queue in queues)
        return WorkUnplaceable(
            f"{kind} runs on {names} alone, which has not all of the tags that the work requires: {wanted}",
            hint=f"in backhaul.toml, add {missing} to the tags of queue {nearest.name}, or {kind} to another's kinds",
        )
    return WorkUnplaceable(
        f"no declared queue has all of the tags that the work requires: {wanted}",
        hint=f"in backhaul.toml, add {missing} to the tags of queue {nearest.name}, or declare a queue with {wanted}",
    )
