"""Conflicts on a replica: what is shown, what is held, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from backhaul.errors import Misused, TryLater, Unknown
from backhaul.replica import enrol, parked
from backhaul.replica.strategies import Rules
from tests.disputes import (
    RULES,
    SCHEMA,
    add_line,
    all_equal,
    contested,
    edit_line,
    entries,
    invoice_of,
    only,
    open_numbers,
    populate,
    resolve,
    undo,
)
from tests.replicas import Replica
from tests.unit.replica.conftest import MakeReplica


@pytest.fixture
def pair(make: MakeReplica) -> tuple[Replica, Replica]:
    return populate(make(schema=SCHEMA, rules=RULES), make("b", schema=SCHEMA, rules=RULES))


def test_mine_stands_here_and_theirs_is_shown_beside_it(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    (entry,) = entries(b, contested(a, b))
    assert (entry.kind, entry.was, entry.mine, entry.theirs) == (
        "update",
        {"body": "first"},
        {"body": "of b"},
        {"body": "of a"},
    )
    assert (entry.reason, entry.there, entry.state) == ("conflict", "changed", "open")
    assert b.rows("note") == [("n", "of b", "red")]
    assert a.rows("note") == [("n", "of a", "red")]
    assert b.states() == {"conflict": 1}


def test_everything_else_flows_while_a_conflict_waits(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    contested(a, b)
    b.write("INSERT INTO note VALUES ('other', 'x', NULL)")
    a.write("UPDATE note SET colour = 'blue' WHERE id = 'n'")
    a.sync()
    b.sync()
    a.sync()
    assert b.rows("note") == [("n", "of b", "blue"), ("other", "x", None)]
    assert a.rows("note") == [("n", "of a", "blue"), ("other", "x", None)]


def test_what_is_written_later_is_held_and_goes_with_the_choice(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    number = contested(a, b)
    b.write("UPDATE note SET colour = 'later' WHERE id = 'n'")
    b.write("UPDATE note SET body = 'later of b' WHERE id = 'n'")
    b.sync()
    (entry,) = entries(b, number)
    assert entry.mine == {"body": "later of b", "colour": "later"}
    assert b.states() == {"conflict": 3}
    b.write("UPDATE note SET body = 'latest of b' WHERE id = 'n'")  # not even looked at by a push yet
    resolve(b, "mine")
    assert all_equal(a, b)
    assert a.rows("note") == [("n", "latest of b", "later")]


def test_theirs_takes_away_what_was_held_too(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    contested(a, b)
    b.write("UPDATE note SET colour = 'later' WHERE id = 'n'")
    with pytest.raises(TryLater, match="not all here"):
        resolve(b, "theirs")  # what colour the server has was never heard here
    b.sync()
    resolve(b, "theirs")
    assert b.outbox() == []
    assert b.rows("note") == [("n", "of a", "red")]
    assert all_equal(a, b)


def test_theirs_is_brought_up_to_date_by_the_feed(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    number = contested(a, b)
    a.write("UPDATE note SET body = 'of a, later'")
    a.sync()
    b.sync()
    (entry,) = entries(b, number)
    assert entry.theirs == {"body": "of a, later"}
    resolve(b, "theirs")
    assert b.rows("note") == [("n", "of a, later", "red")]


def test_a_choice_that_meets_another_edit_is_a_conflict_again(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    first = contested(a, b)
    resolve(b, "mine")
    a.write("UPDATE note SET body = 'of a, faster'")
    a.sync()
    b.sync()
    second = only(b)
    assert second != first
    with pytest.raises(Misused, match="conflict again"):
        undo(b, first)
    resolve(b, "mine")
    assert all_equal(a, b)
    assert a.rows("note") == [("n", "of b", "red")]


def test_two_replicas_with_one_conflict_show_each_other_what_was_chosen(
    pair: tuple[Replica, Replica], make: MakeReplica
) -> None:
    a, b = pair
    c = make("c", schema=SCHEMA, rules=RULES)
    c.sync()
    c.write("UPDATE note SET body = 'of c'")
    contested(a, b)
    c.sync()
    resolve(b, "mine")
    b.sync()
    c.sync()
    (entry,) = entries(c, only(c))
    assert entry.theirs == {"body": "of b"}
    resolve(c, {"body": "of all"})
    assert all_equal(a, b, c)
    assert a.rows("note") == [("n", "of all", "red")]


def test_one_key_made_twice_is_a_conflict_of_two_whole_records(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    for replica, body in ((a, "of a"), (b, "of b")):
        replica.write(f"INSERT INTO note VALUES ('m', '{body}', NULL)")
    a.sync()
    b.sync()
    resolve(b, "theirs")
    assert all_equal(a, b)
    assert ("m", "of a", None) in b.rows("note")


def test_a_delete_that_is_held_with_an_edit_can_still_be_taken_back(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    contested(a, b)
    b.write("DELETE FROM note WHERE id = 'n'")
    b.push()
    with pytest.raises(TryLater, match="not all here"):
        resolve(b, "theirs")  # the rest of the row went with the delete
    b.pull()
    resolve(b, "theirs")
    assert all_equal(a, b)
    assert b.rows("note") == [("n", "of a", "red")]


def test_a_column_that_is_renamed_while_a_conflict_waits_can_still_be_decided_about(
    pair: tuple[Replica, Replica],
) -> None:
    a, b = pair
    number = contested(a, b)
    rules = RULES | {"note": Rules(merge={"text": "manual"}, renamed={"body": "text"})}
    for replica in pair:
        replica.write("ALTER TABLE note RENAME COLUMN body TO text")
        enrol.renew(replica.database, replica.remote, rules=rules)
        replica.sync()
    (entry,) = entries(b, number)
    assert (entry.was, entry.mine) == ({"text": "first"}, {"text": "of b"})
    assert entry.theirs["text"] == "of a"
    resolve(b, "mine")
    assert all_equal(a, b)
    assert a.rows("note") == [("n", "of b", "red")]
    undo(b, number)
    assert all_equal(a, b)
    assert a.rows("note") == [("n", "of a", "red")]


def test_what_was_not_pulled_cannot_be_chosen_from(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    b.write("UPDATE note SET body = 'of b'")
    a.write("UPDATE note SET body = 'of a'")
    a.sync()
    b.push()
    with pytest.raises(TryLater, match="not all here"):
        resolve(b, "mine")
    b.pull()
    resolve(b, "mine")
    assert all_equal(a, b)


def test_what_cannot_be_chosen_is_refused_and_changes_nothing(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    number = contested(a, b)
    for choice in ("ours", {"nothing": 1}, {"id": "x"}):
        with pytest.raises(Misused):
            resolve(b, choice)
    with pytest.raises(Unknown):
        resolve(b, "mine", number + 1)
    with pytest.raises(Misused):
        undo(b, number)
    with pytest.raises(Unknown):
        undo(b, number + 1)
    assert b.states() == {"conflict": 1}
    assert b.rows("note") == [("n", "of b", "red")]
    resolve(b, "mine")
    with pytest.raises(Unknown):
        resolve(b, "theirs", number)


def test_conflicts_that_a_transaction_ties_together_become_one(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    a.write("INSERT INTO note VALUES ('m', 'x', NULL)")
    a.sync()
    b.sync()
    for key in ("n", "m"):
        a.write(f"UPDATE note SET body = 'of a' WHERE id = '{key}'")
        b.write(f"UPDATE note SET body = 'of b' WHERE id = '{key}'")
    a.sync()
    b.sync()
    first, _ = open_numbers(b)
    b.write_together("UPDATE note SET colour = 'blue' WHERE id = 'n'", "UPDATE note SET colour = 'blue' WHERE id = 'm'")
    b.sync()
    assert open_numbers(b) == [first]
    assert len(entries(b, first)) == 2
    resolve(b, "mine")
    assert all_equal(a, b)
    assert a.rows("note") == [("m", "of b", "blue"), ("n", "of b", "blue")]


def test_a_conflict_and_a_refusal_do_not_get_in_each_others_way(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    contested(a, b)
    b.write("INSERT INTO note VALUES ('p', 'refused', NULL)")
    b.write(
        "UPDATE backhaul_outbox SET state = 'parked', op_id = 'p', reason = 'test', settled_at = 1"
        " WHERE state = 'pending'"
    )
    b.sync()
    assert b.states() == {"conflict": 1, "parked": 1}
    parked.retry(b.database, [], now=b.clock.now())
    resolve(b, "mine")
    assert all_equal(a, b)


def test_news_of_an_aggregate_that_is_on_its_way_waits_and_is_let_go_after_it(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    edit_line(b, "l1", 10)
    push = b.remote.push

    def lost(ops: Any) -> Any:
        push(ops)
        raise TryLater("the answer is lost")

    b.remote.push = lost  # type: ignore[method-assign]
    with pytest.raises(TryLater):
        b.push()
    b.remote.push = push  # type: ignore[method-assign]
    a.sync()
    add_line(a, "l3", 1)
    a.sync()
    b.pull()
    assert invoice_of(b) == (14, 14)
    b.write("UPDATE backhaul_outbox SET next_at = 0")
    b.push(alone=True)
    b.pull()
    assert invoice_of(b) == (15, 15)
    assert all_equal(a, b)


def test_an_aggregate_that_was_deleted_there_comes_back_whole_or_goes(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    a.write_together("DELETE FROM line", "DELETE FROM invoice")
    edit_line(b, "l1", 20)
    a.sync()
    b.sync()
    assert invoice_of(b) == (24, 24)
    number = resolve(b, "mine")
    assert all_equal(a, b)
    assert invoice_of(a) == (24, 24)
    undo(b, number)
    assert all_equal(a, b)
    assert b.rows("line") == b.rows("invoice") == []
