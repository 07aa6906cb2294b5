"""What a test claims of work, and what it is told when that is not so: why the work is as it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from backhaul.testing.running import Ran
from backhaul.work.functions import Function, name_of
from backhaul.work.row import State, Work
from backhaul.work.works import Works


class Assertions(ABC):
    """Each raises AssertionError."""

    work: Works
    ran: list[Ran]

    @abstractmethod
    def why(self, work_id: str) -> str: ...

    @abstractmethod
    def due(self) -> list[Work]: ...

    def assert_state(self, work_id: str, *states: State) -> None:
        """It is in one of these states."""
        found = self.work.get(work_id)
        state = found.state if found is not None else "unknown"
        if state not in states:
            raise AssertionError(f"{self._named(work_id)} is not {' or '.join(states)} but {self._told(work_id)}")

    def assert_ran(self, what: str | Function, times: int | None = None) -> None:
        """what: an id, a worker function, or its name. times: just so often; else once or more."""
        number = len(self._runs(what))
        if number == times or (times is None and number):
            return
        wanted = "run" if times is None else f"run {times} times"
        raise AssertionError(f"{self._named(what)} should have {wanted}, and ran {number} times: {self._told(what)}")

    def assert_not_ran(self, what: str | Function) -> None:
        self.assert_ran(what, times=0)

    def assert_output(self, work_id: str, output: Mapping[str, Any]) -> None:
        found = self.work.get(work_id)
        if found is None or found.output != dict(output):
            said = None if found is None else found.output
            named, told = self._named(work_id), self._told(work_id)
            raise AssertionError(f"{named} has the output {said}, not {dict(output)}: {told}")

    def assert_nothing_due(self) -> None:
        """`run_due` would find nothing to run."""
        ready = self.due()
        if ready:
            said = "; ".join(f"{work.label} {work.id}: {self.why(work.id)}" for work in ready[:5])
            raise AssertionError(f"{len(ready)} works are due: {said}")

    def _runs(self, what: str | Function) -> list[Ran]:
        if callable(what):
            what = name_of(what)
        return [one for one in self.ran if what in (one.id, one.label)]

    def _named(self, what: str | Function) -> str:
        if callable(what):
            return name_of(what)
        found = self.work.get(what)
        return what if found is None or found.label == what else f"{found.label} {what}"

    def _told(self, what: str | Function) -> str:
        """Why it is as it is; of a function, of each of its works."""
        if not callable(what) and self.work.get(what) is not None:
            raised = [one.error for one in self.ran if one.id == what and one.error is not None]
            return self.why(what) + (f" (it raised {raised[-1]!r})" if raised else "")
        name = name_of(what) if callable(what) else what
        works = [work for work in self.work.query(limit=100) if work.label == name]
        works.sort(key=lambda work: (work.created_at, work.id))
        return "; ".join(f"{work.id}: {self.why(work.id)}" for work in works) or "no such work was enqueued"
