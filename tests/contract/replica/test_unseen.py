"""What the feed has told and the app has not seen, because a change of ours lay over it: an edit of the app's does not
claim to have seen it. Over both databases."""

from __future__ import annotations

from typing import Any

import pytest

from backhaul.errors import Unreachable
from backhaul.replica import enrol, parked, unseen
from backhaul.replica.strategies import Rules
from tests.contract.replica.conftest import MakeReplica
from tests.disputes import all_equal, entries, only, open_numbers, resolve
from tests.replicas import OUTBOX, Replica

pytestmark = pytest.mark.alternating("sqlite", "postgresql")

SCHEMA = """
    CREATE TABLE note (id TEXT PRIMARY KEY, body TEXT, colour TEXT);
    CREATE TABLE kept (id TEXT PRIMARY KEY, body TEXT, colour TEXT);
"""
RULES = {"note": Rules(merge={"body": "manual", "colour": "manual"}), "kept": Rules(deletes="edit_wins")}


@pytest.fixture
def pair(make: MakeReplica) -> tuple[Replica, Replica]:
    a, b = (make(schema=SCHEMA, rules=RULES) for _ in "ab")
    for table in ("note", "kept"):
        a.write(f"INSERT INTO {table} VALUES ('n', 'first', 'red')")
    a.sync()
    b.sync()
    return a, b


def push_without_an_answer(replica: Replica) -> None:
    push = replica.remote.push

    def lost(ops: Any) -> Any:
        push(ops)
        raise Unreachable("the answer is lost")

    replica.remote.push = lost  # type: ignore[method-assign]
    with pytest.raises(Unreachable):
        replica.push()
    replica.remote.push = push  # type: ignore[method-assign]
    replica.write(f"UPDATE {OUTBOX} SET next_at = 0")


def over(a: Replica, b: Replica, said: str) -> None:
    """b's edit of the note arrives, its answer does not; a, who has seen it, writes this over it; b pulls."""
    b.write("UPDATE note SET body = 'of b'")
    push_without_an_answer(b)
    a.sync()
    a.write(said)
    a.sync()
    b.pull()


@pytest.mark.parametrize("when", ["before the answer", "after the answer"])
def test_an_edit_over_what_was_withheld_is_a_conflict(pair: tuple[Replica, Replica], when: str) -> None:
    a, b = pair
    over(a, b, "UPDATE note SET body = 'of a'")
    assert b.rows("note") == [("n", "of b", "red")]
    if when == "after the answer":
        b.push(alone=True)
    b.write("UPDATE note SET body = 'of b, again'")
    b.push(alone=True)
    b.pull()
    (entry,) = entries(b, only(b))
    assert (entry.mine, entry.theirs) == ({"body": "of b, again"}, {"body": "of a", "colour": "red"})
    resolve(b, "theirs")
    assert all_equal(a, b)
    assert a.rows("note") == [("n", "of a", "red")]
    with b.database.reading() as connection:
        assert unseen.count(connection) == 0


def test_an_edit_of_what_was_fetched_meanwhile_has_seen_it(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    over(a, b, "UPDATE note SET body = 'of a'")
    b.push(alone=True)
    b.pull()
    assert b.rows("note") == [("n", "of a", "red")]
    b.write("UPDATE note SET body = 'of b, again'")
    assert all_equal(a, b)
    assert a.rows("note") == [("n", "of b, again", "red")]


def test_what_was_shown_beside_it_was_seen(pair: tuple[Replica, Replica]) -> None:
    """Only the field of our change was withheld, and the other replica wrote the other one."""
    a, b = pair
    over(a, b, "UPDATE note SET body = 'of a', colour = 'blue'")
    assert b.rows("note") == [("n", "of b", "blue")]
    b.write("UPDATE note SET colour = 'light blue'")
    assert all_equal(a, b)
    assert a.rows("note") == [("n", "of a", "light blue")]


def test_a_field_that_is_shown_again_was_seen_though_another_edit_waits(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    over(a, b, "UPDATE note SET body = 'of a'")
    b.push(alone=True)
    b.write("UPDATE note SET colour = 'green'")
    b.pull()  # fetches what was overtaken, under the colour
    assert b.rows("note") == [("n", "of a", "green")]
    b.write("UPDATE note SET body = 'of b, again'")
    assert all_equal(a, b)
    assert a.rows("note") == [("n", "of b, again", "green")]


def test_what_lies_under_a_parked_change_was_not_seen_by_what_came_after_it(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    b.write("UPDATE note SET body = 'refused'")
    b.write(f"UPDATE {OUTBOX} SET state = 'parked', op_id = 'x', reason = 'test', settled_at = 1")
    a.write("UPDATE note SET body = 'of a'")
    a.sync()
    b.pull()
    b.write("UPDATE note SET body = 'of b'")
    assert parked.discard(b.database, b.remote, ["x"]) == 1
    b.sync()
    assert parked.retry(b.database, [], now=b.clock.now()) == 1
    b.sync()
    (entry,) = entries(b, only(b))
    assert (entry.mine, entry.theirs) == ({"body": "of b"}, {"body": "of a"})
    resolve(b, "mine")
    assert all_equal(a, b)
    assert a.rows("note") == [("n", "of b", "red")]


@pytest.mark.parametrize("lost", [True, False])
def test_a_delete_does_not_take_an_edit_along_that_was_withheld(pair: tuple[Replica, Replica], lost: bool) -> None:
    a, b = pair
    b.write("UPDATE kept SET body = 'of b'")
    if lost:
        push_without_an_answer(b)
        a.sync()
    a.write("UPDATE kept SET body = 'of a'")
    a.sync()
    b.pull()
    b.write("DELETE FROM kept")
    assert all_equal(a, b)
    assert [row[0] for row in a.rows("kept")] == ["n"]


def test_an_edit_of_what_was_deleted_unseen_keeps_it(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    b.write("UPDATE kept SET body = 'of b'")
    push_without_an_answer(b)
    a.sync()
    a.write("DELETE FROM kept")
    a.sync()
    b.pull()
    b.write("UPDATE kept SET colour = 'blue'")
    assert all_equal(a, b)
    assert a.rows("kept") == [("n", "of b", "blue")]


def test_a_column_that_is_renamed_meanwhile_was_seen_no_more_than_before(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    over(a, b, "UPDATE note SET body = 'of a'")
    rules = RULES | {"note": Rules(merge={"text": "manual", "colour": "manual"}, renamed={"body": "text"})}
    b.write("ALTER TABLE note RENAME COLUMN body TO text")
    enrol.renew(b.database, b.remote, rules=rules)
    b.write("UPDATE note SET text = 'of b, again'")
    b.push(alone=True)
    assert len(open_numbers(b)) == 1
