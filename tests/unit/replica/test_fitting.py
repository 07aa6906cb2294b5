"""UNIQUE values that change places, what waits for something else, and how little it costs to find what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from backhaul.replica import aside
from tests.replicas import Replica
from tests.unit.replica.conftest import MakeReplica

SEATS = """
    CREATE TABLE person (id TEXT PRIMARY KEY, seat INTEGER {seat} UNIQUE, name TEXT {name} UNIQUE CHECK (name <> 'no'));
    CREATE TABLE note (id TEXT PRIMARY KEY, person TEXT NOT NULL REFERENCES person (id), what TEXT);
"""
FREE = "CREATE TABLE person (id TEXT PRIMARY KEY, seat INTEGER, name TEXT); "
FREE += "CREATE TABLE note (id TEXT PRIMARY KEY, person TEXT, what TEXT);"
KINDS = [SEATS.format(seat="", name=""), SEATS.format(seat="NOT NULL", name="NOT NULL")]


def set_aside(replica: Replica) -> dict[str, str]:
    rows = replica.app.execute("SELECT key, reason FROM backhaul_aside ORDER BY key").fetchall()
    return dict(rows)


def seated(make: MakeReplica, schema: str, number: int) -> tuple[Replica, Replica]:
    """Two replicas with the same people, each in a seat; the first one's database is free of rules."""
    a, b = make("a", schema=FREE), make("b", schema=schema)
    with a.app:
        a.app.executemany("INSERT INTO person VALUES (?, ?, ?)", [(f"p{one}", one, f"n{one}") for one in range(number)])
    a.sync()
    b.sync()
    assert len(b.rows("person")) == number
    return a, b


def equal(a: Replica, b: Replica) -> bool:
    return a.rows("person") == b.rows("person")


@contextmanager
def statements(replica: Replica) -> Iterator[list[str]]:
    said: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    event.listen(replica.database.engine, "before_cursor_execute", note)
    yield said
    event.remove(replica.database.engine, "before_cursor_execute", note)


@pytest.mark.parametrize("schema", KINDS)
@pytest.mark.parametrize("number", [2, 3, 50])
def test_values_that_go_round_in_a_ring_arrive(make: MakeReplica, schema: str, number: int) -> None:
    a, b = seated(make, schema, number)
    a.write("UPDATE person SET seat = (seat + 1) % ?", number)
    a.sync()
    b.sync()
    assert set_aside(b) == {}
    assert equal(a, b)


@pytest.mark.parametrize("schema", KINDS)
def test_values_that_move_along_a_line_arrive_whatever_the_order(make: MakeReplica, schema: str) -> None:
    a, b = seated(make, schema, 40)
    a.write("UPDATE person SET seat = seat + 1, name = 'm' || (39 - seat)")
    a.sync()
    b.sync()
    assert set_aside(b) == {}
    assert equal(a, b)


def test_a_swap_of_one_value_leaves_the_others_alone(make: MakeReplica) -> None:
    a, b = seated(make, KINDS[1], 2)
    b.write("UPDATE person SET name = 'mine' WHERE id = 'p0'")
    a.write("UPDATE person SET seat = 1 - seat")
    a.sync()
    b.pull()
    assert b.rows("person") == [("p0", 1, "mine"), ("p1", 0, "n1")]
    assert [row["state"] for row in b.outbox()] == ["pending"]


def test_in_a_ring_with_one_that_cannot_be_the_others_stay_right(make: MakeReplica) -> None:
    """p1 may not be called 'no', so it keeps its seat; whoever was to have it waits, and comes once it is free."""
    a, b = seated(make, KINDS[0], 4)
    a.write("UPDATE person SET seat = (seat + 1) % 4, name = CASE id WHEN 'p1' THEN 'no' ELSE name END")
    a.write("INSERT INTO person VALUES ('p9', 9, 'n9')")
    a.sync()
    b.sync()
    waiting = set_aside(b)
    assert "CHECK constraint failed" in waiting['["p1"]']
    assert ("p9", 9, "n9") in b.rows("person")
    assert len({row[1] for row in b.rows("person")}) == 5
    a.write("UPDATE person SET name = 'yes' WHERE id = 'p1'")
    a.sync()
    b.sync()
    assert set_aside(b) == {}
    assert equal(a, b)


def test_what_was_set_aside_comes_with_the_pull_that_brings_what_it_needs(make: MakeReplica) -> None:
    a, b = seated(make, KINDS[0], 1)
    with b.app:
        b.app.execute(
            "CREATE TRIGGER known BEFORE INSERT ON note WHEN NEW.person NOT IN (SELECT id FROM person)"
            " BEGIN SELECT RAISE(ABORT, 'nobody of that name'); END"
        )
    a.write("INSERT INTO note VALUES ('x', 'p7', 'early')")
    a.sync()
    b.sync()
    assert "nobody of that name" in set_aside(b)['["x"]']
    a.write("INSERT INTO person VALUES ('p7', 7, 'n7')")
    a.sync()
    b.pull()
    assert set_aside(b) == {}
    assert b.rows("note") == [("x", "p7", "early")]


def test_a_trigger_of_the_app_that_raises_stops_nothing_else(make: MakeReplica) -> None:
    a, b = seated(make, KINDS[0], 1)
    with b.app:
        b.app.execute(
            "CREATE TRIGGER never BEFORE UPDATE ON person WHEN NEW.seat = 13"
            " BEGIN SELECT RAISE(ABORT, 'no thirteen'); END"
        )
    a.write("UPDATE person SET seat = 13")
    a.write("INSERT INTO person VALUES ('p2', 2, 'n2')")
    a.sync()
    b.sync()
    assert set_aside(b) == {'["p0"]': "no thirteen"}
    assert len(b.rows("person")) == 2


def test_a_required_value_that_is_not_there_sets_aside(make: MakeReplica) -> None:
    a, b = seated(make, KINDS[1], 1)
    a.write("INSERT INTO person VALUES ('p2', 2, NULL), ('p3', 3, 'n3')")
    a.sync()
    b.sync()
    assert list(set_aside(b)) == ['["p2"]']
    assert "NOT NULL" in set_aside(b)['["p2"]']


def test_thousands_that_do_not_fit_cost_a_bounded_number_of_statements(make: MakeReplica) -> None:
    a, b = seated(make, KINDS[0], 1)
    with a.app:
        rows = [(f"q{one}", 1000 + one, "no" if one % 2 else f"m{one}") for one in range(2000)]
        a.app.executemany("INSERT INTO person VALUES (?, ?, ?)", rows)
    a.sync()
    with statements(b) as said:
        b.pull()
    assert len(set_aside(b)) == 1000
    assert len(b.rows("person")) == 1001
    assert len(said) < 100_000
    with b.database.reading() as connection:
        assert aside.count(connection) == 1000
    with statements(b) as said:
        b.pull()
    assert len(said) < 20_000  # those of one turn, not all
