"""An edit of a text that builds on one that was given up: it is made anew against the text that stands."""

from __future__ import annotations

import pytest

from backhaul.replica import parked
from backhaul.replica.strategies import Rules
from tests.contract.replica.conftest import MakeReplica
from tests.disputes import all_equal
from tests.replicas import Replica

pytestmark = pytest.mark.alternating("sqlite", "postgresql")

SCHEMA = "CREATE TABLE article (id TEXT PRIMARY KEY, serial TEXT, notes TEXT);"
RULES = {"article": Rules(merge={"serial": "immutable", "notes": "text"})}


@pytest.fixture
def pair(make: MakeReplica) -> tuple[Replica, Replica]:
    """b has two edits of the notes parked, the later built on the earlier, which the server refuses for its serial."""
    a, b = (make(schema=SCHEMA, rules=RULES) for _ in "ab")
    a.write("INSERT INTO article VALUES ('x', '17', 'a green box')")
    a.sync()
    b.sync()
    b.write("UPDATE article SET notes = 'a big green box', serial = '18'")
    b.write("UPDATE article SET notes = 'a big open green box'")
    b.push()
    assert [row["reason"] for row in b.parked()] == ["immutable", "depends-on-refused"]
    return a, b


def test_it_is_shown_and_sent_against_the_text_that_stands(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    a.write("UPDATE article SET notes = 'a green box, heavy'")
    a.sync()
    b.pull()
    parked.discard(b.database, b.remote, [b.parked()[0]["op_id"]])
    assert "open" in b.rows("article")[0][2]
    assert parked.retry(b.database, [], now=b.clock.now()) == 1
    assert all_equal(a, b)
    assert a.rows("article") == b.rows("article")
    (_, serial, notes) = a.rows("article")[0]
    assert (serial, "open" in notes, "heavy" in notes, "big" in notes) == ("17", True, True, False)


def test_both_sent_again_are_woven_in_once(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    a.write("UPDATE article SET notes = 'the green box'")
    a.sync()
    parked.retry(b.database, [], now=b.clock.now())
    b.sync()
    parked.discard(b.database, b.remote, [b.parked()[0]["op_id"]])
    parked.retry(b.database, [], now=b.clock.now())
    assert all_equal(a, b)
    assert a.rows("article") == b.rows("article")
    assert a.rows("article")[0][2].count("open") == 1
