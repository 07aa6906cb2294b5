"""What the strategies have against the ops of a push: each op is merged, in order, into the records as they would be.

A record's ops are looked at up to the first that is refused: those after it are refused with it (admission.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from backhaul.merge import State, merge, objection, overgrown
from backhaul.server.problems import problem
from backhaul.server.records import Place
from backhaul.server.tables import Shape

if TYPE_CHECKING:
    from backhaul.server.admission import Item

AFTER_ALL = 2**62  # for a version that is not given yet: after every other


def object_to(items: Sequence[Item], states: Mapping[Place, State], shapes: Mapping[str, Shape]) -> None:
    """Give a problem to each op that its strategies cannot take where the record is as it is then."""
    if not any(shape.strategies.columns for shape in shapes.values()):
        return
    present: dict[Place, State] = {}
    closed: set[Place] = set()
    for item in items:
        if item.change is None or item.place is None or not shapes[item.op.table].strategies.columns:
            continue
        if item.problem is not None:
            closed.add(item.place)
        if item.place in closed:
            continue
        strategies = shapes[item.op.table].strategies
        before = present.get(item.place) or states.get(item.place)
        try:
            told = objection(before, item.change, strategies)
            if told is None:
                after = present[item.place] = merge(before, item.change, AFTER_ALL, strategies)
                told = overgrown(before, after, item.change, strategies)
        except Exception:  # the merge that counts fails on it, too, and then it is told apart (trial.py)
            closed.add(item.place)
            continue
        if told is not None:
            item.problem = problem(told.problem, told.detail, op=item.op.op)
            closed.add(item.place)
