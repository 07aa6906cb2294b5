"""Merging a push on trial: which ops the server itself fails on, and which make a record larger than a client can hold.

Those are refused, each with its reason, and the rest is merged anew. A server that fails on one record would otherwise
fail on every message that holds it, and a client could send nothing behind it; a record that grew beyond an answer,
by one harmless update after another, could never be pulled again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from traceback import extract_tb

from backhaul.merge import State, merge
from backhaul.server.admission import Item
from backhaul.server.problems import problem
from backhaul.server.records import Place
from backhaul.server.tables import Shape
from backhaul.telemetry import emit
from backhaul.wire import MOST_RECORD, encode


def blame(items: Sequence[Item], states: Mapping[Place, State], shapes: Mapping[str, Shape]) -> bool:
    """Refuse the ops whose merge raises, each tried by itself on its record; whether there are any."""
    failing = []
    for place in {item.place for item in items if item.place is not None}:
        state = states.get(place)
        for item in _applied(items, place):
            assert item.change is not None
            try:
                state = merge(state, item.change, 1, shapes[place[0]].strategies)
            except Exception as error:  # whatever it is: the op is told apart from the others by it
                failing.append(item)
                emit("server.op_failed", op=item.op.op, error=type(error).__name__, place=_place_of(error))
    for item in failing:
        item.problem = problem("op-failed", "the server fails on this op; its log says more", op=item.op.op)
    return bool(failing)


def refuse_too_large(
    items: Sequence[Item], states: Mapping[Place, State], merged: Mapping[Place, State], shapes: Mapping[str, Shape]
) -> bool:
    """Refuse the ops that make a record larger than it may be; whether there are any. One that is larger already may
    become smaller."""
    if 2 * len(encode([(state.fields, state.states) for state in merged.values()])) <= MOST_RECORD:
        return False  # together they are not as large as one may be
    found = False
    for place in [place for place, state in merged.items() if _size(state) > MOST_RECORD]:
        state = states.get(place)
        for item in _applied(items, place):
            assert item.change is not None
            after = merge(state, item.change, 1, shapes[place[0]].strategies)
            if _size(after) > max(MOST_RECORD, _size(state)):
                detail = f"{place[0]} {place[1]:.80} would have more than {MOST_RECORD} bytes"
                item.problem = problem("record-too-large", detail, op=item.op.op, limit=MOST_RECORD)
                found = True
                break  # what comes later on the same record depends on it
            state = after
    return found


def _place_of(error: Exception) -> str:
    """Where it was raised; what it says could be a row's data."""
    frame = extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}, line {frame.lineno}"


def _applied(items: Sequence[Item], place: Place) -> Iterator[Item]:
    return (item for item in items if item.place == place and item.change is not None and item.problem is None)


def _size(state: State | None) -> int:
    if state is None:
        return 0
    return len(encode(state.fields)) + (len(encode(state.states)) if state.states else 0) + len(encode(state.states))
