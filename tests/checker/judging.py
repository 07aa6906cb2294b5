"""The judge: holds a history against what a causally consistent store with atomic transactions may show.

For every transaction it reckons what that one is *after*: for each key, the greatest value among everything it wrote
or read, what its session did before, and what the writers of the values it read were after, and so on. A snapshot that
shows a value must show everything that the value's writer was after; a session must never be shown less than it has
been shown, or has written itself. Which of the guarantees is broken is told by the shortest way to the missing value:

    read your writes        the session wrote it itself
    monotonic reads         the session has read it before
    atomic visibility       it was written by the very transaction whose other value is shown
    monotonic writes        it was written before, by the same session as a value that is shown
    writes follow reads     it was seen, at whatever remove, by the writer of a value that is shown

and beside these: `nobody wrote it`, and `cycle`: two transactions that have each seen what the other one wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from tests.checker.history import NOTHING, Transaction, Undone

State = dict[str, int]  # by key


@dataclass(frozen=True, kw_only=True, order=True)
class Violation:
    """rule: its name. said: what was seen, for people."""

    rule: str
    said: str


@dataclass
class Session:
    """What one session has done and seen so far."""

    written: State = field(default_factory=dict)
    read: State = field(default_factory=dict)
    after: State = field(default_factory=dict)


class Judge:
    """Takes the transactions of a history so that each comes after those that it has seen."""

    def __init__(self, history: Iterable[Transaction]) -> None:
        self.history = sorted(history, key=lambda one: one.began)
        self.violations: list[Violation] = []
        self._writers = {(key, value): one for one in self.history for key, value in one.writes.items()}
        self._sessions: dict[str, Session] = {}
        self._after: dict[int, State] = {}  # by id of the transaction
        self._before: dict[int, State] = {}  # what its session had written before it, by id of the transaction

    def judge(self) -> list[Violation]:
        for one in self._in_order():
            session = self._sessions.setdefault(one.session, Session())
            self._judge_reads(one, session)
            self._enter(one, session)
        return self.violations

    def judge_end(
        self, finals: Mapping[str, State], waiting: Mapping[str, int], undone: Iterable[Undone] = ()
    ) -> list[Violation]:
        """finals: what each replica shows in the end, a snapshot like any other. waiting: what is left in its outbox.
        undone: what may be lost, but not in part."""
        least, most = self._bounds(list(undone))
        for name, state in finals.items():
            shown = {key: value for key, value in state.items() if value != NOTHING}
            end = Transaction(session=f"the end of {name}", began=0, ended=0, reads=state)
            for key in sorted(shown.keys() | most.keys()):
                value, low, high = shown.get(key, NOTHING), least.get(key, NOTHING), most.get(key, NOTHING)
                writer = self._writers.get((key, value))
                if not low <= value <= high:
                    self._blame("final", f"{name} ends with {key}={value}, not {high if low == high else (low, high)}")
                elif writer is not None:
                    self._judge_snapshot(end, key, writer)
                elif value != NOTHING:
                    self._blame("nobody wrote it", f"{name} ends with {key}={value}")
        if len({tuple(sorted(state.items())) for state in finals.values()}) > 1:
            self._blame("strong convergence", f"the replicas end apart: {finals}")
        for name, count in waiting.items():
            if count:
                self._blame("drained", f"{count} changes are left in the outbox of {name}")
        return self.violations

    def _bounds(self, undone: Sequence[Undone]) -> tuple[State, State]:
        """The least and the greatest that each key may be in the end: everything that is not undone stands, and with it
        whatever it was after."""
        least: State = {}
        most: State = {}
        for one in self.history:
            _raise(most, one.writes)
            if not any(some.touches(one) for some in undone):
                _raise(least, self._after.get(id(one), one.writes))
        return least, most

    def _in_order(self) -> list[Transaction]:
        numbers = {id(one): number for number, one in enumerate(self.history)}
        order: TopologicalSorter[int] = TopologicalSorter(dict.fromkeys(numbers.values(), ()))
        last: dict[str, int] = {}
        for number, one in enumerate(self.history):
            if one.session in last:
                order.add(number, last[one.session])
            last[one.session] = number
            for read in one.reads.items():
                writer = self._writers.get(read)
                if writer is not None:
                    order.add(number, numbers[id(writer)])
        try:
            return [self.history[number] for number in order.static_order()]
        except CycleError as error:
            self._blame("cycle", " <- ".join(_name(self.history[number]) for number in error.args[1]))
            return []

    def _judge_reads(self, one: Transaction, session: Session) -> None:
        for key, value in one.reads.items():
            if value < session.written.get(key, NOTHING):
                self._blame("read your writes", f"{_name(one)} reads {key}={value}, wrote {session.written[key]}")
            elif value < session.read.get(key, NOTHING):
                self._blame("monotonic reads", f"{_name(one)} reads {key}={value}, has read {session.read[key]}")
            elif value < session.after.get(key, NOTHING):
                said = f"{_name(one)} reads {key}={value}, has read what follows {session.after[key]}"
                self._blame("writes follow reads", said)
        for shown, value in one.reads.items():
            writer = self._writers.get((shown, value))
            if writer is not None:
                self._judge_snapshot(one, shown, writer)
            elif value != NOTHING:
                self._blame("nobody wrote it", f"{_name(one)} reads {shown}={value}")

    def _judge_snapshot(self, one: Transaction, shown: str, writer: Transaction) -> None:
        for key, value in one.reads.items():
            rule = self._missing(key, value, writer)
            if rule:
                self._blame(rule, f"{_name(one)} shows {shown} of {_name(writer)}, and yet {key}={value}")

    def _missing(self, key: str, value: int, writer: Transaction) -> str | None:
        if value < writer.writes.get(key, NOTHING):
            return "atomic visibility"
        if value < self._before[id(writer)].get(key, NOTHING):
            return "monotonic writes"
        if value < self._after[id(writer)].get(key, NOTHING):
            return "writes follow reads"
        return None

    def _enter(self, one: Transaction, session: Session) -> None:
        self._before[id(one)] = dict(session.written)
        for key, value in one.reads.items():
            writer = self._writers.get((key, value))
            _raise(session.after, self._after.get(id(writer), {}))
        _raise(session.read, one.reads)
        _raise(session.written, one.writes)
        for said in (one.reads, one.writes):
            _raise(session.after, said)
        self._after[id(one)] = dict(session.after)

    def _blame(self, rule: str, said: str) -> None:
        self.violations.append(Violation(rule=rule, said=said))


def violations(
    history: Iterable[Transaction],
    finals: Mapping[str, State],
    waiting: Mapping[str, int],
    undone: Iterable[Undone] = (),
) -> list[Violation]:
    judge = Judge(history)
    judge.judge()
    return judge.judge_end(finals, waiting, undone)


def summary(found: Sequence[Violation]) -> str:
    """How often each rule is broken, and the first few cases of each."""
    lines = []
    for rule in sorted({one.rule for one in found}):
        of_rule = [one.said for one in found if one.rule == rule]
        lines += [f"{rule}: {len(of_rule)} times", *(f"    {said}" for said in of_rule[:3])]
    return "\n".join(lines)


def _raise(state: State, by: Mapping[str, int]) -> None:
    for key, value in by.items():
        state[key] = max(state.get(key, NOTHING), value)


def _name(one: Transaction) -> str:
    return f"{one.session}@{one.began}"
