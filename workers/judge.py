"""What the queues of one worker should be, open or closed, and why, as of now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from backhaul.bell import Queue
from backhaul.work.conditions import Condition
from backhaul.work.constraints import judge
from backhaul.work.roster import QueueState
from config.machine import conditions_of
from config.queues import declared
from config.settings import Settings

NEVER = "not judged yet"


@dataclass(frozen=True)
class Flipped:
    opened: list[QueueState]
    closed: list[QueueState]


class Judge:
    """served: the names of the worker's queues. Remembers since when each is as it is."""

    def __init__(self, settings: Settings, served: Sequence[str]) -> None:
        self._conditions = conditions_of(settings)
        self._queues = [queue for queue in declared(settings) if queue.name in served]
        self.states = {queue.name: QueueState(name=queue.name, open=False, reason=NEVER) for queue in self._queues}

    def look(self, connection: Connection, now: int) -> Flipped:
        """Judge every queue anew. When the database cannot be read, all stays as it was."""
        conditions, labels = self._conditions(connection, now)
        before = self.states
        self.states = {queue.name: _state(before[queue.name], queue, conditions, labels, now) for queue in self._queues}
        changed = [state for name, state in self.states.items() if state.open != before[name].open]
        return Flipped([state for state in changed if state.open], [state for state in changed if not state.open])


def _state(
    before: QueueState, queue: Queue, conditions: Mapping[str, Condition], labels: frozenset[str], now: int
) -> QueueState:
    verdict = judge(queue.tags, conditions, labels)
    same = before.open == verdict.open and before.reason != NEVER
    since = before.since if same else now
    return QueueState(name=queue.name, open=verdict.open, reason=verdict.reason, since=since)
