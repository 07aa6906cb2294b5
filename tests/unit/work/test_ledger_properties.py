"""Whatever is done to the ledger, and in whatever order: no row is in a state that makes no sense, and chains end as a
small model of them does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule
from sqlalchemy import Connection, select

from backhaul.database import Database, open_database
from backhaul.errors import Stopped
from backhaul.migrations import upgrade_replica
from backhaul.schema import replica_metadata
from backhaul.work import Work, WorkRequest, ledger
from backhaul.work.row import FINISHED, NEVER

T = 1_767_355_200_000
HOUR = 3_600_000
LEASE = 60_000

_folder = TemporaryDirectory()
_opened: list[Database] = []


def shared() -> Database:
    """One database for all examples: its tables take longer to make than an example takes."""
    if not _opened:
        _opened.append(open_database(f"sqlite:///{_folder.name}/app.db"))
        upgrade_replica(_opened[0])
    return _opened[0]


class Model:
    """Chains as they are meant: a state for each work, and who waits for whom."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.parents: dict[str, tuple[str, ...]] = {}
        self.periodic: set[str] = set()

    def born(self, work_id: str, parents: tuple[str, ...]) -> None:
        self.parents[work_id] = parents
        of = [self.states[parent] for parent in parents]
        ended = next((state for state in ("FAILED", "CANCELLED") if state in of), None)
        self.states[work_id] = ended or ("ENQUEUED" if set(of) <= {"SUCCEEDED"} else "BLOCKED")

    def succeed(self, work_id: str) -> None:
        self.states[work_id] = "SUCCEEDED"
        for child in self.children(work_id):
            if self.states[child] == "BLOCKED" and all(self.states[one] == "SUCCEEDED" for one in self.parents[child]):
                self.states[child] = "ENQUEUED"

    def fail(self, work_id: str) -> None:
        self.states[work_id] = "FAILED"
        for child in self.children(work_id):
            if self.states[child] == "BLOCKED":
                self.fail(child)

    def cancel(self, work_id: str) -> None:
        if self.states[work_id] not in FINISHED:
            self.states[work_id] = "CANCELLED"
        for child in self.children(work_id):
            self.cancel(child)

    def children(self, work_id: str) -> list[str]:
        return [child for child, parents in self.parents.items() if work_id in parents]


class Ledger(RuleBasedStateMachine):
    works = Bundle("works")

    @initialize()
    def begin(self) -> None:
        self.now, self.made, self.model = T, 0, Model()
        self.runs: dict[str, Work] = {}
        with self.writing() as connection:
            for table in replica_metadata.sorted_tables:
                connection.execute(table.delete())

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        with shared().writing() as connection:
            yield connection

    # new work

    @rule(target=works, data=st.data(), number=st.integers(1, 4), name=st.sampled_from([None, "a", "b"]))
    def enqueue(self, data: Any, number: int, name: str | None) -> Any:
        """A chain of its own, hung onto what is there already."""
        there = sorted(set(self.model.states) - self.model.periodic)
        entries, fresh = [], []
        for _ in range(number):
            possible = [*there, *fresh]
            parents = tuple(data.draw(st.lists(st.sampled_from(possible), max_size=3, unique=True)) if possible else ())
            work_id = f"{self.made:04}"
            self.made += 1
            expires = data.draw(st.sampled_from([None, None, HOUR]))
            request = WorkRequest(task="shop.a", id=work_id, expires_after_ms=expires)
            entries.append(ledger.Entry(request, "sync", parents=parents))
            self.model.born(work_id, parents)
            fresh.append(work_id)
        # The order in which they are told is of no account.
        with self.writing() as connection:
            ledger.enqueue_all(connection, data.draw(st.permutations(entries)), now=self.now, name=name)
        return multiple(*fresh)

    @rule(target=works)
    def enqueue_periodic(self) -> str:
        work_id = f"{self.made:04}"
        self.made += 1
        with self.writing() as connection:
            request = WorkRequest(task="shop.tidy", id=work_id, interval_ms=HOUR)
            ledger.enqueue_all(connection, [ledger.Entry(request, "sync")], now=self.now)
        self.model.born(work_id, ())
        self.model.periodic.add(work_id)
        return work_id

    # runs

    @rule(work_id=works)
    def claim(self, work_id: str) -> None:
        with self.writing() as connection:
            run = ledger.claim(connection, work_id, 0, worker="w", now=self.now, lease_ms=LEASE)
        if run is not None:
            assert self.model.states[work_id] == "ENQUEUED"
            self.model.states[work_id] = "RUNNING"
            self.runs[work_id] = run

    @precondition(lambda self: "ENQUEUED" in self.model.states.values())
    @rule(data=st.data(), verb=st.sampled_from(["succeed"] * 6 + ["fail", "retry", "stop", "postpone"]))
    def run(self, data: Any, verb: str) -> None:
        """What most often happens, or few chains would get anywhere."""
        waiting = [one for one, state in self.model.states.items() if state == "ENQUEUED"]
        work_id = data.draw(st.sampled_from(waiting))
        self.claim(work_id)
        self.settle(work_id, verb)

    @rule(work_id=works, verb=st.sampled_from(["succeed", "fail", "retry", "stop", "postpone"]))
    def settle(self, work_id: str, verb: str) -> None:
        """By the last run there was; it may have lost its work since."""
        run = self.runs.pop(work_id, None)
        if run is None:
            return
        said: dict[str, Any] = {
            "succeed": {},
            "fail": {"error": "no"},
            "retry": {"error": "no"},
            "stop": {"reason": "USER"},
            "postpone": {"due_at": self.now + 1_000},
        }[verb]
        try:
            with self.writing() as connection:
                getattr(ledger, verb)(connection, run, now=self.now, **said)
        except Stopped:
            assert self.model.states[work_id] != "RUNNING"
            return
        assert self.model.states[work_id] == "RUNNING"
        if verb in ("succeed", "fail") and work_id not in self.model.periodic:
            getattr(self.model, verb)(work_id)
        else:
            self.model.states[work_id] = "ENQUEUED"

    @rule()
    def recover(self) -> None:
        with self.writing() as connection:
            for work in ledger.recover(connection, self.now):
                assert self.model.states[work.id] == "RUNNING"
                if work.state == "FAILED":  # lost too often in a row
                    self.model.fail(work.id)
                else:
                    self.model.states[work.id] = "ENQUEUED"

    # others

    @rule(work_id=works)
    def cancel(self, work_id: str) -> None:
        with self.writing() as connection:
            ended = ledger.cancel_by_id(connection, work_id, now=self.now, by="test")
        before = dict(self.model.states)
        self.model.cancel(work_id)
        assert ended == sum(state != before[one] for one, state in self.model.states.items())

    @rule(name=st.sampled_from(["a", "b"]))
    def cancel_name(self, name: str) -> None:
        with self.writing() as connection:
            unfinished = [
                work.id for work in ledger.query(connection, names=[name], states=["ENQUEUED", "RUNNING", "BLOCKED"])
            ]
            ledger.cancel_by_name(connection, name, now=self.now, by="test")
        for work_id in unfinished:
            self.model.cancel(work_id)

    @rule()
    def expire(self) -> None:
        with self.writing() as connection:
            late = {
                work.id
                for work in ledger.query(connection, states=["ENQUEUED", "BLOCKED"])
                if work.attempt == 0 and work.expires_at is not None and work.expires_at <= self.now
            }
            ledger.expire(connection, self.now)
        for work_id in late:
            self.model.cancel(work_id)

    @rule(work_id=works, force=st.booleans())
    def wake(self, work_id: str, force: bool) -> None:
        with self.writing() as connection:
            ledger.wake(connection, work_id, self.now, force=force)

    @rule(milliseconds=st.sampled_from([1_000, LEASE, HOUR]))
    def wait(self, milliseconds: int) -> None:
        self.now += milliseconds

    # what always holds

    @invariant()
    def all_is_as_in_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        with shared().reading() as connection:
            rows = ledger.query(connection, limit=10_000)
            edge = replica_metadata.tables["backhaul_work_parent"]
            edges = connection.execute(select(edge.c.work_id, edge.c.parent_id)).all()
        assert {row.id: row.state for row in rows} == self.model.states
        by_id = {row.id: row for row in rows}
        for row in rows:
            assert (row.state == "RUNNING") == (row.worker is not None) == (row.lease_until > 0)
            assert row.finished == (row.finished_at is not None)
            assert row.state != "BLOCKED" or (row.parents > 0 and row.due_at == NEVER and row.attempt == 0)
            assert row.state not in ("ENQUEUED", "RUNNING") or row.due_at < NEVER
            assert row.progress is None or row.state in ("RUNNING", "ENQUEUED")
        for child, parent in edges:
            assert by_id[parent].children == 1
            if by_id[parent].state in ("FAILED", "CANCELLED"):
                assert by_id[child].finished
            if by_id[child].state in ("RUNNING", "ENQUEUED"):
                assert by_id[parent].state == "SUCCEEDED"


# With each `make test` some 25 histories, and others every time; 250 with `make chaos`.
TestLedger = Ledger.TestCase
TestLedger.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.chaos
class TestLedgerForLong(Ledger.TestCase):  # type: ignore[misc]
    settings = settings(TestLedger.settings, max_examples=250)
