"""Keys that the databases make up: drawn from blocks, remapped where they have met, values that change places."""

from __future__ import annotations

import random

import pytest

from backhaul.replica import blocks, refill, remap, tables
from backhaul.replica.reconcile import compare
from tests.contract.replica.conftest import MakeReplica
from tests.replicas import Replica

pytestmark = pytest.mark.alternating("sqlite", "postgresql")

TICKET = "CREATE TABLE ticket ({counted}, what TEXT);"
SHOP = """
    CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT UNIQUE, friend INTEGER REFERENCES customer (id));
    CREATE TABLE invoice (id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customer (id));
    CREATE TABLE line (
        invoice_id INTEGER NOT NULL REFERENCES invoice (id), position INTEGER NOT NULL, what TEXT,
        PRIMARY KEY (invoice_id, position));
"""


def numbered(kind: str) -> str:
    return SHOP if kind == "sqlite" else SHOP.replace("id INTEGER PRIMARY KEY", "id SERIAL PRIMARY KEY")


def in_hand(replica: Replica) -> int:
    with replica.database.reading() as connection:
        return blocks.left(connection, [one.table for one in tables.all_tracked(connection)])["ticket"]


def draw(replica: Replica, count: int) -> list[int]:
    return [replica.asked("INSERT INTO ticket (what) VALUES ('x') RETURNING id")[0][0] for _ in range(count)]


def settled(*replicas: Replica) -> None:
    for one in replicas * 2:
        one.sync()
    for one in replicas:
        assert one.parked() == []
        assert compare(one.database, one.remote, context=one.context).equal


@pytest.mark.parametrize("seed", range(2))
def test_replicas_on_both_databases_never_draw_one_key_twice(make_on: MakeReplica, seed: int) -> None:
    dice = random.Random(seed)
    replicas = [
        make_on("sqlite", schema=TICKET),
        make_on("postgresql", schema=TICKET),
        make_on("sqlite", schema=TICKET),
    ]
    drawn: list[int] = []
    for _ in range(40):
        one = dice.choice(replicas)
        match dice.randrange(4):
            case 0:
                one.push()
            case 1:
                one.pull(limit=dice.choice([1, 50, 2000]))
            case _:
                drawn += draw(one, dice.randrange(min(60, in_hand(one))))
                one.app.commit()
                refill.turn(one.database, now=one.clock.now())
    settled(*replicas)
    assert len(set(drawn)) == len(drawn) > 100


def test_a_row_that_others_have_numbered_into_our_block_is_passed_by(make_on: MakeReplica) -> None:
    a, b = make_on("postgresql", schema=TICKET), make_on("sqlite", schema=TICKET)
    (first,) = draw(a, 1)
    b.write("INSERT INTO ticket (id, what) VALUES (?, 'by hand')", first + 1)
    b.sync()
    a.pull()
    assert draw(a, 2) == [first + 2, first + 3]


def test_a_taken_key_is_remapped_with_all_that_refers_to_it(make: MakeReplica, kind: str) -> None:
    a, b = make(schema=numbered(kind)), make(schema=numbered(kind))
    for one, name in ((a, "Ada"), (b, "Bob")):
        one.write("INSERT INTO customer VALUES (1, ?, 1)", name)
        one.write("INSERT INTO invoice VALUES (1, 1)")
        one.write("INSERT INTO line VALUES (1, 1, ?)", name)
        one.sync()
    a.write("INSERT INTO invoice VALUES (8, 1)")
    a.sync()
    b.sync()
    done = remap.remap(b.database, b.remote, [], now=b.clock.now())
    assert sorted((one.table, one.old) for one in done) == [("customer", 1), ("invoice", 1)]
    settled(a, b)
    assert a.rows("customer") == b.rows("customer")
    new = {one.table: one.new for one in done}
    assert b.asked(f"SELECT name, friend FROM customer WHERE id = {new['customer']}") == [("Bob", new["customer"])]
    assert b.asked(f"SELECT customer_id FROM invoice WHERE id = {new['invoice']}") == [(new["customer"],)]
    assert b.asked("SELECT what FROM line ORDER BY what") == [("Ada",), ("Bob",)]
    assert b.asked("SELECT customer_id FROM invoice WHERE id = 8") == [(1,)]


@pytest.mark.parametrize("required", ["", "NOT NULL"])
def test_values_that_change_places_arrive(make: MakeReplica, required: str) -> None:
    free = "CREATE TABLE person (id TEXT PRIMARY KEY, seat INTEGER, code TEXT);"
    strict = f"CREATE TABLE person (id TEXT PRIMARY KEY, seat INTEGER {required} UNIQUE, code TEXT {required} UNIQUE);"
    a, b = make(schema=free), make(schema=strict)
    a.write("INSERT INTO person VALUES ('a', 0, 'x'), ('b', 1, 'y'), ('c', 2, 'z')")
    a.sync()
    b.sync()
    a.write(
        "UPDATE person SET seat = (seat + 1) % 3, code = CASE code WHEN 'x' THEN 'y' WHEN 'y' THEN 'x' ELSE 'z' END"
    )
    a.sync()
    b.sync()
    assert b.asked("SELECT count(*) FROM backhaul_aside") == [(0,)]
    assert a.rows("person") == b.rows("person")
