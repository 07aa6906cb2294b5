"""Records of the server that the app's own schema refuses: set aside, told, tried again; the rest flows."""

from __future__ import annotations

from backhaul.replica import aside
from backhaul.replica.why import why_record
from tests.replicas import Replica
from tests.unit.replica.conftest import MakeReplica

STRICT = """
    CREATE TABLE person (id TEXT PRIMARY KEY, email TEXT UNIQUE, age INTEGER CHECK (age > 0));
    CREATE TABLE note (id TEXT PRIMARY KEY, what TEXT);
"""
LAX = """
    CREATE TABLE person (id TEXT PRIMARY KEY, email TEXT, age INTEGER);
    CREATE TABLE note (id TEXT PRIMARY KEY, what TEXT);
"""


def set_aside(replica: Replica) -> int:
    with replica.database.reading() as connection:
        return aside.count(connection)


def why(replica: Replica, key: str) -> str:
    with replica.database.reading() as connection:
        return why_record(connection, "person", [key], now=replica.clock.now())


def test_one_record_that_does_not_fit_stops_nothing_else(make: MakeReplica) -> None:
    a, b = make("a", schema=STRICT), make("b", schema=STRICT)
    a.write("INSERT INTO person VALUES ('1', 'same@example.org', 1)")
    b.write("INSERT INTO person VALUES ('2', 'same@example.org', 2)")
    a.write("INSERT INTO person VALUES ('3', 'other@example.org', 3)")
    a.write("INSERT INTO note VALUES ('n', 'arrives')")
    a.sync()
    b.sync()
    assert b.rows("note") == [("n", "arrives")]
    assert b.rows("person") == [("2", "same@example.org", 2), ("3", "other@example.org", 3)]
    assert set_aside(b) == 1
    assert "UNIQUE constraint failed: person.email" in why(b, "1")
    b.write("UPDATE person SET email = 'mine@example.org' WHERE id = '2'")
    b.sync()
    a.sync()
    a.sync()
    assert set_aside(b) == set_aside(a) == 0
    assert a.rows("person") == b.rows("person")
    assert len(b.rows("person")) == 3


def test_a_record_set_aside_comes_as_it_is_by_then(make: MakeReplica) -> None:
    a, b = make("a", schema=LAX), make("b", schema=STRICT)
    a.write("INSERT INTO person VALUES ('1', 'x', 0)")
    a.sync()
    b.sync()
    assert (set_aside(b), b.rows("person")) == (1, [])
    assert "CHECK constraint failed" in why(b, "1")
    a.write("UPDATE person SET age = 5")
    a.sync()
    b.sync()
    b.sync()
    assert (set_aside(b), b.rows("person")) == (0, [("1", "x", 5)])


def test_a_deleted_record_is_no_longer_aside(make: MakeReplica) -> None:
    a, b = make("a", schema=LAX), make("b", schema=STRICT)
    a.write("INSERT INTO person VALUES ('1', 'x', 0)")
    a.sync()
    b.sync()
    a.write("DELETE FROM person")
    a.sync()
    b.sync()
    b.sync()
    assert (set_aside(b), b.rows("person")) == (0, [])


def test_a_unique_value_that_moves_from_one_record_to_another_arrives(make: MakeReplica) -> None:
    a, b = make("a", schema=STRICT), make("b", schema=STRICT)
    a.write("INSERT INTO person VALUES ('1', 'x', 1), ('2', 'y', 2)")
    a.sync()
    b.sync()
    a.write("UPDATE person SET email = 'z' WHERE id = '2'")
    a.write("UPDATE person SET email = 'y' WHERE id = '1'")
    a.sync()
    b.sync()
    assert set_aside(b) == 0
    assert b.rows("person") == a.rows("person")
