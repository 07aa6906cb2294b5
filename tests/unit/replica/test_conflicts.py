"""Conflicts on a replica: what is shown, what is held, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from backhaul.errors import Misused, Refused, TryLater, Unknown
from backhaul.replica import enrol, parked, recover
from backhaul.replica.strategies import Rules
from backhaul.server.memory import MemoryRemote
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


def test_theirs_is_not_what_stood_there_before_an_edit_of_ours_that_was_taken(pair: tuple[Replica, Replica]) -> None:
    """The edit and the conflict go in one push; the edit itself the feed never tells."""
    a, b = pair
    a.write("INSERT INTO note VALUES ('m', 'x', 'red')")
    a.sync()
    b.sync()
    a.write("UPDATE note SET body = 'of a' WHERE id = 'n'")
    a.write("DELETE FROM note WHERE id = 'm'")
    a.push()
    b.write_together("DELETE FROM note WHERE id = 'm'", "INSERT INTO note VALUES ('m', 'x', 'of b')")
    b.write_together("UPDATE note SET body = 'of b' WHERE id = 'n'", "DELETE FROM note WHERE id = 'm'")
    b.push()
    b.sync()
    resolve(b, "theirs")
    assert all_equal(a, b)
    assert b.rows("note") == [("m", "x", "of b"), ("n", "of a", "red")]


def test_theirs_is_not_what_an_answer_from_before_says_that_was_lost(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    a.write("UPDATE note SET body = 'of a'")
    a.sync()
    b.write("DELETE FROM note")
    push = b.remote.push

    def lost(ops: Any) -> Any:
        push(ops)
        raise TryLater("the answer is lost")

    b.remote.push = lost  # type: ignore[method-assign]
    with pytest.raises(TryLater):
        b.push()
    b.remote.push = push  # type: ignore[method-assign]
    a.write("UPDATE note SET colour = 'blue'")
    a.sync()
    b.pull()  # the feed tells of it, and the note is deleted here
    b.write("UPDATE backhaul_outbox SET next_at = 0")
    b.push(alone=True)
    with pytest.raises(TryLater):
        resolve(b, "theirs")
    b.pull()
    resolve(b, "theirs")
    assert all_equal(a, b)
    assert b.rows("note") == [("n", "of a", "blue")]


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


ADDED = "CREATE TABLE shelf (id TEXT PRIMARY KEY, place TEXT, stock INTEGER, labels TEXT, note TEXT, tenth INTEGER)"
ADDING = {"shelf": Rules(merge={"place": "manual", "stock": "counter", "labels": "set", "note": "text"})}


@pytest.fixture
def shelves(make: MakeReplica) -> tuple[Replica, Replica]:
    a, b = (make(name, schema=ADDED, rules=ADDING) for name in "ab")
    a.write("""INSERT INTO shelf VALUES ('s', 'cellar', 10, '["old"]', 'one two', 1)""")
    a.sync()
    b.sync()
    return a, b


def stow(replica: Replica, place: str, add: int, labels: str, note: str, *, together: bool = True) -> None:
    sets = (f"place = '{place}'", f"stock = stock + {add}", f"labels = '{labels}'", f"note = '{note}'")
    statements = [", ".join(sets)] if together else list(sets)
    replica.write_together(*(f"UPDATE shelf SET {one}" for one in statements))


OF_A = ("s", "shed", 13, '["a"]', "zero one two", 1)
OF_BOTH = ("s", "attic", 18, '["a","b"]', "zero one two three", 1)


@pytest.mark.parametrize("later", [False, True], ids=["at once", "after others wrote"])
@pytest.mark.parametrize("together", [True, False], ids=["in the contested change", "in others beside it"])
@pytest.mark.parametrize("choice", ["mine", "theirs", "values", "a value of what is added"])
def test_who_takes_a_choice_back_takes_nothing_from_what_others_added(
    shelves: tuple[Replica, Replica], choice: str, together: bool, later: bool
) -> None:
    a, b = shelves
    stow(b, "attic", 5, '["b","old"]', "one two three", together=together)
    stow(a, "shed", 3, '["a"]', "zero one two")
    a.sync()
    b.sync()
    said: dict[str, Any] = {"values": {"place": "attic"}, "a value of what is added": {"place": "attic", "stock": 50}}
    number = resolve(b, said.get(choice, choice))
    assert all_equal(a, b)
    chosen = OF_A if choice == "theirs" else OF_BOTH
    if choice == "a value of what is added":
        chosen = (*chosen[:2], 50, *chosen[3:])
    assert b.rows("shelf") == [chosen]
    if later:
        a.write_together("UPDATE shelf SET stock = stock + 100", "UPDATE shelf SET note = '!' || note")
        assert all_equal(a, b)
    undo(b, number)
    assert all_equal(a, b)
    key, place, stock, labels, note, tenth = OF_BOTH if choice == "theirs" else OF_A
    assert a.rows("shelf") == [(key, place, stock + 100 * later, labels, "!" * later + note, tenth)]


def test_what_was_made_anew_on_both_sides_is_what_it_was_again(shelves: tuple[Replica, Replica]) -> None:
    """There its values are values, and nothing is added to anything."""
    a, b = shelves
    for replica, stock, note in ((a, 7, "of a"), (b, 5, "of b")):
        replica.write(f"INSERT INTO shelf VALUES ('t', 'new {note}', {stock}, NULL, '{note}', NULL)")
    a.sync()
    b.sync()
    number = resolve(b, "mine")
    assert all_equal(a, b)
    undo(b, number)
    assert all_equal(a, b)
    found = {row[0]: row[1:] for row in a.rows("shelf")}
    assert found["t"] == ("new of a", 7, None, "of a", None)


def test_a_text_that_cannot_be_read_hinders_no_choice(shelves: tuple[Replica, Replica]) -> None:
    a, b = shelves
    stow(b, "attic", 5, "[]", "one two three")
    stow(a, "shed", 3, "[]", "zero one two")
    a.sync()
    b.sync()
    b.write("UPDATE shelf SET place = CAST(x'ff' AS TEXT), stock = stock + 1")
    resolve(b, "theirs")
    assert all_equal(a, b)
    assert a.rows("shelf") == [("s", "shed", 13, "[]", "zero one two", 1)]


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


def test_what_was_added_to_a_record_that_only_this_replica_has_stays_an_addition(make: MakeReplica) -> None:
    """As one value it would be what the counter begins with, and another replica's beginning could take its place."""
    schema = f"{SCHEMA} CREATE TABLE shelf (id TEXT PRIMARY KEY, stock INTEGER);"
    rules = RULES | {"shelf": Rules(merge={"stock": "counter"})}
    a, b = populate(make(schema=schema, rules=rules), make("b", schema=schema, rules=rules))
    contested(a, b)
    b.write_together("UPDATE note SET colour = 'blue'", "INSERT INTO shelf VALUES ('s', 0)")
    b.write("UPDATE shelf SET stock = stock + 5")
    b.sync()
    assert {entry.key: entry.there for entry in entries(b, only(b))} == {'["n"]': "whole", '["s"]': "absent"}
    resolve(b, "mine")
    assert [row["fields"] for row in b.outbox() if row["table_name"] == "shelf"] == [
        '{"stock":0}',
        '{"stock":{"was":0,"now":5}}',
    ]
    assert all_equal(a, b)
    assert a.rows("shelf") == [("s", 5)]


def test_a_conflict_and_a_refusal_do_not_get_in_each_others_way(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    contested(a, b)
    b.write("INSERT INTO note VALUES ('p', 'refused', NULL)")
    b.write(
        "UPDATE backhaul_outbox SET state = 'parked', attempts = 1, op_id = 'p', reason = 'test', settled_at = 1"
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


def test_a_part_that_we_have_deleted_does_not_come_back_with_older_news_of_it(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    b.write_together("DELETE FROM line WHERE id = 'l1'", "UPDATE invoice SET total = (SELECT sum(amount) FROM line)")
    recover.begin_anew(b.database, since=b.asked("SELECT cursor FROM backhaul_replica")[0][0])
    pull = b.remote.pull

    def late(*some: Any, **said: Any) -> Any:
        """The page is from before the delete, and comes after it; by then the next edit of the invoice waits."""
        page = pull(*some, **said)
        b.remote.pull = pull  # type: ignore[method-assign]
        b.push()
        edit_line(b, "l2", 9)
        return page

    b.remote.pull = late  # type: ignore[method-assign]
    b.pull()
    b.sync()
    assert all_equal(a, b)
    assert a.rows("line") == b.rows("line") == [("l2", "i", 9)]


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


def test_who_gives_up_a_parked_edit_of_an_aggregate_sees_all_of_what_stands_at_once(
    pair: tuple[Replica, Replica],
) -> None:
    a, b = pair

    class Strict(MemoryRemote):
        def push(self, ops: Any) -> Any:
            if any(op.kind != "void" for op in ops):
                raise Refused("this is not JSON", problem="malformed", status=400)
            return super().push(ops)

    edit_line(b, "l1", 9)
    b.remote.__class__ = Strict  # type: ignore[assignment]
    b.push()
    b.remote.__class__ = MemoryRemote  # type: ignore[assignment]
    assert [row["reason"] for row in b.parked()] == ["malformed", "malformed"]
    add_line(a, "l3", 5)
    a.sync()
    b.pull()
    parked.discard(b.database, b.remote, [])
    assert invoice_of(b) == (12, 12)
    assert all_equal(a, b)


def test_who_gives_up_an_edit_of_an_aggregate_gives_up_what_was_made_on_top_of_it(
    pair: tuple[Replica, Replica],
) -> None:
    a, b = pair
    add_line(b, "l3", 5)
    b.write(
        "UPDATE backhaul_outbox SET state = 'parked', attempts = 1, op_id = 'p' || id, reason = 'test', settled_at = 1"
        " WHERE state = 'pending'"
    )
    edit_line(b, "l3", 6)
    b.write_together("UPDATE note SET colour = 'blue'", "UPDATE invoice SET remark = 'paid'")
    b.write("UPDATE note SET body = 'stays'")
    (line, *_) = b.parked()
    assert parked.discard(b.database, b.remote, [str(line["op_id"])]) == 6
    assert (invoice_of(b), b.rows("note")) == ((7, 7), [("n", "stays", "red")])
    assert [(row["table_name"], row["reason"]) for row in b.parked()] == [("note", "depends-on-parked")]
    parked.retry(b.database, [], now=b.clock.now())
    assert all_equal(a, b)
    assert invoice_of(a) == (7, 7)
