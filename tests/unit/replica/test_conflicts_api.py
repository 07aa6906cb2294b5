"""Conflicts as a host app sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import FrozenInstanceError

import pytest
from sqlalchemy import create_engine

from backhaul import Backhaul
from backhaul.bell import Queue, SilentBell
from backhaul.errors import Misused, Unknown
from tests.disputes import RULES, SCHEMA, all_equal, contested, populate
from tests.replicas import Replica
from tests.unit.replica.conftest import MakeReplica


@pytest.fixture
def pair(make: MakeReplica) -> tuple[Replica, Replica]:
    return populate(make(schema=SCHEMA, rules=RULES), make("b", schema=SCHEMA, rules=RULES))


@pytest.fixture
def app(pair: tuple[Replica, Replica]) -> Iterator[Backhaul]:
    engine = create_engine(f"sqlite:///{pair[1].path}")
    made = Backhaul(engine, bell=SilentBell([Queue(name="sync")], frozenset()))
    yield made
    made.close()
    engine.dispose()


def test_an_app_lists_its_conflicts_decides_and_takes_it_back(pair: tuple[Replica, Replica], app: Backhaul) -> None:
    a, b = pair
    number = contested(a, b)
    (conflict,) = app.conflicts.list()
    (record,) = conflict.records
    assert (conflict.id, conflict.state, record.table, record.key) == (number, "open", "note", ("n",))
    assert (record.base, record.mine, record.theirs) == ({"body": "first"}, {"body": "of b"}, {"body": "of a"})
    assert app.status().conflicts == 1
    assert f"backhaul conflicts show {number}" in app.why("note", ["n"])
    with pytest.raises(FrozenInstanceError):
        conflict.state = "resolved"  # type: ignore[misc]
    with pytest.raises(Misused):
        app.conflicts.resolve(number, {"nothing": 1})
    with pytest.raises(Unknown):
        app.conflicts.get(number + 1)

    assert app.conflicts.resolve(number, {"body": "of both"}).choice == "values"
    assert app.conflicts.list() == []
    assert [one.state for one in app.conflicts.list(resolved=True)] == ["resolved"]
    assert all_equal(a, b)
    assert a.rows("note") == [("n", "of both", "red")]
    assert app.conflicts.undo(number).state == "undone"
    assert all_equal(a, b)
    assert a.rows("note") == [("n", "of a", "red")]
