"""Conflicts on a replica, over both databases: what each choice does, and taking it back; aggregates."""

from __future__ import annotations

from typing import Any

import pytest

from backhaul.errors import Misused, Unknown
from tests.contract.replica.conftest import MakeReplica
from tests.disputes import (
    RULES,
    SCHEMA,
    add_line,
    all_equal,
    contested,
    drop_line,
    edit_line,
    entries,
    invoice_of,
    only,
    open_numbers,
    populate,
    resolve,
    undo,
)
from tests.replicas import MovedClock, Replica

pytestmark = pytest.mark.alternating("sqlite", "postgresql")


@pytest.fixture
def pair(make: MakeReplica) -> tuple[Replica, Replica]:
    return populate(make(schema=SCHEMA, rules=RULES), make(schema=SCHEMA, rules=RULES))


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


def test_what_was_decided_is_forgotten_after_a_month(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    number = contested(a, b)
    resolve(b, "mine")
    decided = b.clock.now()
    for days, kept in ((29, True), (31, False)):
        b.clock = MovedClock(decided + days * 86_400_000)
        b.sync()
        assert bool(entries(b, number)) == kept
    with pytest.raises(Unknown):
        undo(b, number)


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


def test_a_group_is_one_conflict_and_what_refers_to_it_too(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    a.write("UPDATE note SET body = 'of a'")
    a.sync()
    b.write_together("UPDATE note SET body = 'of b'", "INSERT INTO note VALUES ('m', 'beside it', NULL)")
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
