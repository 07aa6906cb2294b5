"""Conflicts on a replica, over both databases: what is shown and held, what each choice does, and taking it back."""

from __future__ import annotations

from typing import Any

import pytest

from backhaul.errors import Misused, TryLater, Unknown
from backhaul.replica import conflicts, parked, resolution
from backhaul.replica.contested import Entry
from backhaul.replica.reconcile import compare
from backhaul.replica.strategies import Rules
from tests.contract.replica.conftest import MakeReplica
from tests.replicas import Replica

SCHEMA = """
    CREATE TABLE note (id TEXT PRIMARY KEY, body TEXT, colour TEXT);
    CREATE TABLE invoice (id TEXT PRIMARY KEY, total INTEGER, remark TEXT);
    CREATE TABLE line (
        id TEXT PRIMARY KEY, invoice_id TEXT NOT NULL REFERENCES invoice (id), amount INTEGER NOT NULL);
"""
RULES = {
    "note": Rules(merge={"body": "manual"}),
    "invoice": Rules(merge={"*": "manual"}),
    "line": Rules(aggregate="invoice"),
}


@pytest.fixture
def pair(make: MakeReplica) -> tuple[Replica, Replica]:
    """Two replicas that share one note, and an invoice of two lines."""
    a, b = make(schema=SCHEMA, rules=RULES), make(schema=SCHEMA, rules=RULES)
    a.write("INSERT INTO note VALUES ('n', 'first', 'red')")
    group(
        a,
        "INSERT INTO invoice VALUES ('i', 7, NULL)",
        "INSERT INTO line VALUES ('l1', 'i', 3)",
        "INSERT INTO line VALUES ('l2', 'i', 4)",
    )
    a.sync()
    b.sync()
    return a, b


def group(replica: Replica, *statements: str) -> None:
    """One transaction of an app whose engine is hooked."""
    replica.write_together(*statements)


def contested(a: Replica, b: Replica, mine: str = "of b", theirs: str = "of a") -> int:
    """Both write the note's body; the conflict is b's. Returns its number."""
    b.write(f"UPDATE note SET body = '{mine}'")
    a.write(f"UPDATE note SET body = '{theirs}'")
    a.sync()
    b.sync()
    return only(b)


def open_numbers(replica: Replica) -> list[int]:
    with replica.database.reading() as connection:
        return conflicts.numbers(connection)


def only(replica: Replica) -> int:
    (number,) = open_numbers(replica)
    return number


def entries(replica: Replica, number: int) -> list[Entry]:
    with replica.database.reading() as connection:
        return conflicts.of_number(connection, number)


def resolve(replica: Replica, choice: Any, number: int | None = None) -> int:
    number = number or only(replica)
    resolution.resolve(replica.database, number, choice, now=replica.clock.now())
    return number


def undo(replica: Replica, number: int) -> None:
    resolution.undo(replica.database, number)


def all_equal(*replicas: Replica) -> bool:
    for replica in (*replicas, *replicas):
        replica.sync()
    return all(
        replica.outbox() == [] and compare(replica.database, replica.remote, context=replica.context).equal
        for replica in replicas
    )


def invoice_of(replica: Replica) -> tuple[int, int]:
    """The total, and what it should be."""
    (total,) = [row[1] for row in replica.rows("invoice")]
    return total, sum(row[2] for row in replica.rows("line"))


# ------------------------------------------------------------------------------------------------ one record


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


@pytest.mark.parametrize(("choice", "stands"), [("mine", "of b"), ("theirs", "of a"), ({"body": "both"}, "both")])
def test_what_is_chosen_stands_everywhere_and_undone_what_stood_before(
    pair: tuple[Replica, Replica], choice: Any, stands: str
) -> None:
    a, b = pair
    number = contested(a, b)
    resolve(b, choice)
    assert b.rows("note") == [("n", stands, "red")]
    assert open_numbers(b) == []
    assert all_equal(a, b)
    assert a.rows("note") == [("n", stands, "red")]
    undo(b, number)
    assert all_equal(a, b)
    before = "of b" if choice == "theirs" else "of a"
    assert a.rows("note") == b.rows("note") == [("n", before, "red")]
    assert {entry.state for entry in entries(b, number)} == {"undone"}


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
    c = make(schema=SCHEMA, rules=RULES)
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


@pytest.mark.parametrize(("choice", "stands"), [("mine", []), ("theirs", [("n", "of a", "green")])])
def test_a_delete_that_met_an_edit(pair: tuple[Replica, Replica], choice: str, stands: list[Any]) -> None:
    a, b = pair
    b.write("DELETE FROM note")
    a.write("UPDATE note SET body = 'of a', colour = 'green'")
    a.sync()
    b.sync()
    (entry,) = entries(b, only(b))
    assert (entry.kind, entry.there) == ("delete", "whole")
    assert b.rows("note") == []
    number = resolve(b, choice)
    assert all_equal(a, b)
    assert a.rows("note") == stands
    undo(b, number)
    assert all_equal(a, b)
    assert b.rows("note") == ([("n", "of a", "green")] if choice == "mine" else [])


@pytest.mark.parametrize(("choice", "stands"), [("mine", [("n", "of b", "red")]), ("theirs", [])])
def test_an_edit_that_met_a_delete(pair: tuple[Replica, Replica], choice: str, stands: list[Any]) -> None:
    a, b = pair
    b.write("UPDATE note SET body = 'of b'")
    a.write("DELETE FROM note")
    a.sync()
    b.sync()
    assert entries(b, only(b))[0].there == "deleted"
    assert b.rows("note") == [("n", "of b", "red")]
    number = resolve(b, choice)
    assert all_equal(a, b)
    assert a.rows("note") == stands
    undo(b, number)
    assert all_equal(a, b)
    assert b.rows("note") == ([] if choice == "mine" else [("n", "of b", "red")])


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


def test_a_group_is_one_conflict_and_what_refers_to_it_too(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    a.write("UPDATE note SET body = 'of a'")
    a.sync()
    group(b, "UPDATE note SET body = 'of b'", "INSERT INTO note VALUES ('m', 'beside it', NULL)")
    b.write("INSERT INTO note VALUES ('free', 'x', NULL)")
    b.sync()
    number = only(b)
    assert [(entry.key, entry.there) for entry in entries(b, number)] == [('["n"]', "changed"), ('["m"]', "absent")]
    with pytest.raises(Misused, match="2 records"):
        resolve(b, {"body": "x"})
    resolve(b, "theirs")
    assert all_equal(a, b)
    assert b.rows("note") == [("free", "x", None), ("n", "of a", "red")]
    undo(b, number)
    assert all_equal(a, b)
    assert a.rows("note") == [("free", "x", None), ("m", "beside it", None), ("n", "of b", "red")]


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
    group(b, "UPDATE note SET colour = 'blue' WHERE id = 'n'", "UPDATE note SET colour = 'blue' WHERE id = 'm'")
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


# ------------------------------------------------------------------------------------------------ aggregates


def edit_line(replica: Replica, line: str, amount: int) -> None:
    """As an app does: the line and the total, in one transaction."""
    group(
        replica,
        f"UPDATE line SET amount = {amount} WHERE id = '{line}'",
        "UPDATE invoice SET total = (SELECT sum(amount) FROM line WHERE invoice_id = 'i')",
    )


def add_line(replica: Replica, line: str, amount: int) -> None:
    group(
        replica,
        f"INSERT INTO line VALUES ('{line}', 'i', {amount})",
        "UPDATE invoice SET total = (SELECT sum(amount) FROM line WHERE invoice_id = 'i')",
    )


def drop_line(replica: Replica, line: str) -> None:
    group(
        replica,
        f"DELETE FROM line WHERE id = '{line}'",
        "UPDATE invoice SET total = (SELECT sum(amount) FROM line WHERE invoice_id = 'i')",
    )


@pytest.mark.parametrize("choice", ["mine", "theirs"])
def test_an_invoice_never_disagrees_with_its_lines(pair: tuple[Replica, Replica], choice: str) -> None:
    a, b = pair
    edit_line(a, "l1", 10)
    add_line(a, "l3", 100)
    drop_line(a, "l2")
    edit_line(b, "l2", 20)
    a.sync()
    b.sync()
    assert invoice_of(b) == (23, 23)
    assert invoice_of(a) == (110, 110)
    assert len(entries(b, only(b))) == 4
    number = resolve(b, choice)
    assert all_equal(a, b)
    assert invoice_of(a) == invoice_of(b) == ((23, 23) if choice == "mine" else (110, 110))
    undo(b, number)
    assert all_equal(a, b)
    assert invoice_of(a) == invoice_of(b) == ((110, 110) if choice == "mine" else (23, 23))


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


def test_what_is_done_to_an_aggregate_later_is_held_with_it(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    edit_line(a, "l1", 10)
    edit_line(b, "l1", 20)
    a.sync()
    b.sync()
    number = only(b)
    b.write("DELETE FROM line WHERE id = 'l2'")  # without a word of the invoice
    b.write("UPDATE invoice SET remark = 'x'")
    b.sync()
    assert open_numbers(b) == [number]
    assert set(b.states()) == {"conflict"}
    assert invoice_of(a) == (14, 14)
    add_line(a, "l4", 1)
    a.sync()
    b.sync()
    assert b.rows("line") == [("l1", "i", 20)]
    resolve(b, "theirs")
    assert all_equal(a, b)
    assert invoice_of(b) == (15, 15)


def test_an_aggregate_that_was_deleted_there_comes_back_whole_or_goes(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    group(a, "DELETE FROM line", "DELETE FROM invoice")
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
