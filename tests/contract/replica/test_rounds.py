"""Changes that go out and come in, on both databases and between them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from backhaul.replica.reconcile import reconcile
from tests.contract.replica.conftest import MakeReplica
from tests.replicas import Replica

PAIRS = [("sqlite", "sqlite"), ("sqlite", "postgresql"), ("postgresql", "sqlite"), ("postgresql", "postgresql")]


def settle(*replicas: Replica) -> None:
    for _ in range(2):
        for replica in replicas:
            replica.sync()


def assert_equal(replicas: Sequence[Replica]) -> None:
    for replica in replicas:
        compared = reconcile(replica.database, replica.remote, clock=replica.clock, context=replica.context)
        assert compared.equal, compared
        assert replica.states() == {}


@pytest.fixture(params=PAIRS, ids=lambda pair: "-".join(pair))
def pair(request: pytest.FixtureRequest, make_on: MakeReplica) -> tuple[Replica, Replica]:
    one, other = request.param
    return make_on(one), make_on(other)


def test_rows_go_from_one_to_the_other_and_both_are_equal(pair: tuple[Replica, Replica]) -> None:
    ann, bob = pair
    ann.write("INSERT INTO customer (name, phone, photo) VALUES (?, ?, ?)", "Zoë", "1", b"\x00\xff")
    ann.write("INSERT INTO invoice (customer_id) VALUES (1)")
    ann.write("INSERT INTO line VALUES (1, 1, 'tea'), (1, 2, 'milk')")
    settle(ann, bob)
    assert [tuple(row) for row in bob.rows("line")] == [(1, 1, "tea"), (1, 2, "milk")]
    bob.write("UPDATE customer SET phone = '2'")
    ann.write("UPDATE customer SET name = 'Zoe'")
    bob.write("DELETE FROM line WHERE position = 2")
    bob.write("UPDATE line SET position = 5")
    settle(ann, bob)
    for replica in pair:
        assert [row[:3] for row in replica.rows("customer")] == [(1, "Zoe", "2")]
        assert replica.rows("line") == [(1, 5, "tea")]
    assert_equal(pair)


def test_rows_that_were_there_before_meet(make_on: MakeReplica) -> None:
    many = ", ".join(f"('k{number}', 'label {number}')" for number in range(5_000))
    ann = make_on("postgresql", before=f"INSERT INTO tag VALUES {many};")
    bob = make_on("sqlite", before="INSERT INTO tag VALUES ('k1', 'mine'), ('own', 'x');")
    settle(ann, bob)
    assert len(ann.rows("tag")) == len(bob.rows("tag")) == 5_001
    assert_equal((ann, bob))


def test_children_come_before_their_parents_in_the_alphabet(make_on: MakeReplica) -> None:
    schema = """
        CREATE TABLE zoo (id TEXT PRIMARY KEY);
        CREATE TABLE animal (id TEXT PRIMARY KEY, zoo_id TEXT REFERENCES zoo, eats TEXT REFERENCES animal (id));
    """
    ann, bob = make_on("postgresql", schema=schema), make_on("postgresql", schema=schema)
    ann.write("INSERT INTO zoo VALUES ('z')")
    ann.write("INSERT INTO animal VALUES ('fox', 'z', NULL)")
    ann.write("INSERT INTO animal VALUES ('a lion', 'z', 'fox')")
    settle(ann, bob)
    assert len(bob.rows("animal")) == 2
    ann.write("DELETE FROM animal WHERE id = 'a lion'")
    ann.write("DELETE FROM animal")
    ann.write("DELETE FROM zoo")
    settle(ann, bob)
    assert bob.rows("zoo") == bob.rows("animal") == []
    assert_equal((ann, bob))


def test_what_the_schema_refuses_is_set_aside_and_comes_when_it_fits(make_on: MakeReplica, kind: str) -> None:
    ann = make_on("sqlite")
    bob = make_on(kind, schema="CREATE TABLE tag (code TEXT PRIMARY KEY, label TEXT UNIQUE);")
    bob.write("INSERT INTO tag VALUES ('b', 'same')")
    ann.write("INSERT INTO tag VALUES ('a', 'same')")
    ann.write("INSERT INTO tag VALUES ('c', 'fine')")
    ann.sync()
    bob.sync()
    assert bob.rows("tag") == [("b", "same"), ("c", "fine")]
    bob.write("UPDATE tag SET label = 'other' WHERE code = 'b'")
    bob.sync()
    assert bob.rows("tag") == [("a", "same"), ("b", "other"), ("c", "fine")]
    ann.sync()
    assert_equal((ann, bob))


def test_a_value_of_the_wrong_type_is_set_aside_alone(make_on: MakeReplica) -> None:
    ann = make_on("sqlite", schema="CREATE TABLE item (id TEXT PRIMARY KEY, amount INTEGER);")
    bob = make_on("postgresql", schema="CREATE TABLE item (id TEXT PRIMARY KEY, amount INTEGER);")
    ann.write("INSERT INTO item VALUES ('a', 'many')")
    ann.write("INSERT INTO item VALUES ('b', 2)")
    ann.write("INSERT INTO item VALUES (?, 3)", "nul \0")
    settle(ann, bob)
    assert bob.rows("item") == [("b", 2)]
    ann.write("UPDATE item SET amount = 1 WHERE id = 'a'")
    settle(ann, bob)
    assert bob.rows("item") == [("a", 1), ("b", 2)]


def test_the_database_numbers_on_after_what_came_from_elsewhere(make_on: MakeReplica) -> None:
    ann, bob = make_on("postgresql"), make_on("postgresql")
    ann.write("INSERT INTO customer (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    settle(ann, bob)
    bob.write("INSERT INTO customer (name) VALUES ('d')")
    assert sorted(row[1] for row in bob.rows("customer")) == ["a", "b", "c", "d"]
