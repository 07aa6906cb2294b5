"""What stands against a change, before it is merged: values that its strategies cannot use, and what is contested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backhaul.merge import counter, documents, elements
from backhaul.merge.contest import Manual
from backhaul.merge.counter import Counter
from backhaul.merge.elements import Elements
from backhaul.merge.plain import Immutable
from backhaul.merge.record import State
from backhaul.merge.register import Change, Register, plain_unusable
from backhaul.merge.strategies import Strategies
from backhaul.wire import Kind


@dataclass(frozen=True, kw_only=True)
class Objection:
    """problem: `value-invalid` or `immutable`: the op is refused; `conflict` or `merge-failed`: it waits for a person.
    columns: those that it is about."""

    problem: str
    columns: tuple[str, ...]
    detail: str


def unusable(kind: Kind, fields: dict[str, Any], strategies: Strategies) -> Objection | None:
    """What is wrong with the fields, whatever the record holds. fields: as JSON decodes them."""
    for name, said in fields.items():
        strategy = strategies.columns.get(name)
        if strategy is not None:
            wrong = strategy.unusable(kind, said)
        else:
            wrong = plain_unusable(said) if type(said) is dict else None
        if wrong:
            return Objection(problem="value-invalid", columns=(name,), detail=f"{name}: {wrong}")
    return None


def objection(state: State | None, change: Change, strategies: Strategies) -> Objection | None:
    """Why the change is refused where the record is as it is; what is contested is asked for apart."""
    if state is None or state.deleted:
        return None
    for name, said in change.fields.items():
        strategy, held = strategies.columns.get(name), _held(state, name)
        if held is None:
            continue
        if isinstance(strategy, Immutable) and strategy.forbids(held, change, said):
            why = f"{name} has a value, and it is immutable"
            return Objection(problem="immutable", columns=(name,), detail=why)
        if isinstance(strategy, Counter) and not counter.fits(strategy.reached(held, said)):
            why = f"{name} would count beyond what an integer of 64 bits, or a decimal, can hold"
            return Objection(problem="value-invalid", columns=(name,), detail=why)
    return None


def contested(state: State | None, change: Change, strategies: Strategies) -> Objection | None:
    """What only a person can decide: fields that are `manual`, or `custom` with a function that fails."""
    if state is None or state.deleted:
        return None
    found: dict[str, tuple[str, str]] = {}
    for name, said in change.fields.items():
        strategy, held = strategies.columns.get(name), _held(state, name)
        if isinstance(strategy, Manual) and held is not None:
            contest = strategy.contested(held, change, said)
            if contest is not None:
                found[name] = contest
    if not found:
        return None
    problem = next((name for name, _ in found.values() if name == "merge-failed"), "conflict")
    detail = "; ".join(f"{name}: {why}" for name, (_, why) in found.items())
    return Objection(problem=problem, columns=tuple(found), detail=detail)


def overgrown(before: State | None, state: State, change: Change, strategies: Strategies) -> Objection | None:
    """What stands against what the change has made of the record."""
    for name in change.fields.keys() & strategies.columns.keys():
        held = _held(state, name)
        if held is None or type(held.kept) is not dict:
            continue
        if isinstance(strategies.columns[name], Elements) and len(held.kept) > elements.MOST:
            why = f"{name}: the set has more than {elements.MOST} elements, with those that were cut"
            return Objection(problem="value-invalid", columns=(name,), detail=why)
        if "waits" in held.kept and before is not None and not before.deleted and not _waited(before, name):
            why = f"{name}: the edit builds on one that is not here (it was given up, or the server was put back)"
            return Objection(problem="value-invalid", columns=(name,), detail=why)
        if not documents.fits(held):
            why = f"{name}: the text and its history have more than {documents.MOST_STATE} bytes"
            return Objection(problem="value-invalid", columns=(name,), detail=why)
    return None


def _waited(before: State, name: str) -> bool:
    """Whether something of the text waited already, or it was not all there yet: then it may still come."""
    held = _held(before, name)
    return held is None or (type(held.kept) is dict and "waits" in held.kept)


def _held(state: State, name: str) -> Register | None:
    return state.register(name) if name in state.fields else None
