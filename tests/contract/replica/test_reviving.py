"""An edit of a record that was deleted elsewhere so long ago that nothing is left of it: a retry brings it back."""

from __future__ import annotations

import pytest

from backhaul.replica import parked
from backhaul.replica.strategies import Rules
from backhaul.server.memory import MemoryServer
from tests.contract.replica.conftest import MakeReplica
from tests.disputes import all_equal
from tests.replicas import MovedClock, Replica

pytestmark = pytest.mark.alternating("sqlite", "postgresql")

SCHEMA = "CREATE TABLE article (id TEXT PRIMARY KEY, stock INTEGER, name TEXT, notes TEXT);"
RULES = {"article": Rules(merge={"stock": "counter", "notes": "text"})}
DAY = 86_400_000


def edit_what_is_forgotten(make: MakeReplica, server: MemoryServer) -> tuple[Replica, Replica]:
    """b has edited what a has deleted, and the server has forgotten that there was something."""
    clock = MovedClock(server.clock.now())
    server.clock = clock
    a, b = (make(schema=SCHEMA, rules=RULES) for _ in "ab")
    a.write("INSERT INTO article VALUES ('x', 10, 'box', 'a green box')")
    a.sync()
    b.sync()
    b.write("UPDATE article SET stock = stock + 5, notes = 'a green box, open'")
    b.write("UPDATE article SET stock = stock + 2, name = 'crate'")
    a.write("DELETE FROM article")
    a.sync()
    b.pull()
    clock.moment += 2 * DAY
    a.sync()
    b.pull()
    server.store.purge(clock.moment)
    b.sync()
    assert sorted(row["reason"] for row in b.parked()) == ["record-gone", "record-gone"]
    return a, b


@pytest.fixture
def gone(make: MakeReplica, server: MemoryServer) -> tuple[Replica, Replica]:
    return edit_what_is_forgotten(make, server)


def test_a_retry_brings_a_record_back_whole(gone: tuple[Replica, Replica]) -> None:
    a, b = gone
    assert parked.retry(b.database, [], now=b.clock.now()) == 2
    assert all_equal(a, b)
    assert a.rows("article") == b.rows("article") == [("x", 17, "crate", "a green box, open")]
    a.write("UPDATE article SET notes = 'a big green box, open', stock = stock + 1")
    assert all_equal(a, b)
    assert b.rows("article") == [("x", 18, "crate", "a big green box, open")]


def test_of_a_record_that_was_deleted_here_too_nothing_comes_back(gone: tuple[Replica, Replica]) -> None:
    a, b = gone
    b.write("DELETE FROM article")
    assert parked.retry(b.database, [], now=b.clock.now()) == 3
    assert all_equal(a, b)
    assert a.rows("article") == b.rows("article") == []


def test_given_up_it_is_gone_here_too(gone: tuple[Replica, Replica]) -> None:
    a, b = gone
    parked.discard(b.database, b.remote, [])
    assert all_equal(a, b)
    assert b.rows("article") == []
