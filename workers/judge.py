"""What the queues of one worker should be, open or closed, and why, as of now."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from backhaul.bell import Queue
from backhaul.remotes.traffic import Spent
from backhaul.work.conditions import Condition
from backhaul.work.in_force import holding
from backhaul.work.placing import judge
from backhaul.work.reading import Readings
from backhaul.work.roster import QueueState
from config.machine import node_of
from config.queues import declared
from config.settings import Settings

NEVER = "not judged yet"


@dataclass(frozen=True)
class Flipped:
    opened: list[QueueState]
    closed: list[QueueState]


class Judge:
    """served: the names of the worker's queues. Remembers since when each is as it is, and what the last look saw."""

    def __init__(self, settings: Settings, served: Sequence[str], readings: Callable[[], Readings] = dict) -> None:
        self._node = node_of(settings)
        self._readings = readings
        self.conditions: Mapping[str, Condition] = {}
        self._queues = [queue for queue in declared(settings) if queue.name in served]
        self.states = {queue.name: QueueState(name=queue.name, open=False, reason=NEVER) for queue in self._queues}

    def look(self, said: Mapping[str, Condition], now: int, spent: Spent | None = None) -> Flipped:
        """Judge every queue anew, from memory alone. said, spent: what the database said when it was last asked."""
        held = self.conditions = holding(said, self._readings(), now, self._node, os.environ, spent)
        before, labels = self.states, self._node.labels
        self.states = {queue.name: _state(before[queue.name], queue, held, labels, now) for queue in self._queues}
        changed = [state for name, state in self.states.items() if state.open != before[name].open]
        return Flipped([state for state in changed if state.open], [state for state in changed if not state.open])


def _state(
    before: QueueState, queue: Queue, conditions: Mapping[str, Condition], labels: frozenset[str], now: int
) -> QueueState:
    verdict = judge(queue.tags, conditions, labels)
    same = before.open == verdict.open and before.reason != NEVER
    since = before.since if same else now
    return QueueState(name=queue.name, open=verdict.open, reason=verdict.reason, since=since)
