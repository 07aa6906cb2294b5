"""A schema that moves, on both databases and across them."""

from __future__ import annotations

import pytest

from backhaul.replica import enrol
from backhaul.replica.strategies import Rules
from tests.contract.replica.conftest import MakeReplica
from tests.replicas import Replica

pytestmark = pytest.mark.alternating("sqlite", "postgresql")

RENAMED = {"customer": Rules(renamed={"phone": "mobile"})}


def settle(*replicas: Replica) -> None:
    for _ in range(3):
        for replica in replicas:
            replica.sync()


@pytest.fixture
def other(kind: str) -> str:
    return "postgresql" if kind == "sqlite" else "sqlite"


def test_a_new_column_is_filled_from_the_other_database(make_on: MakeReplica, kind: str, other: str) -> None:
    a, b = make_on(kind), make_on(other)
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada'), (2, 'Bob')")
    settle(a, b)
    a.write("ALTER TABLE customer ADD COLUMN email TEXT")
    assert enrol.renew_if_harmless(a.database, a.remote)
    a.write("UPDATE customer SET email = 'ada@example.org' WHERE id = 1")
    settle(a, b)
    b.write("ALTER TABLE customer ADD COLUMN email TEXT")
    assert enrol.renew_if_harmless(b.database, b.remote)
    settle(a, b)
    assert [row[-1] for row in b.rows("customer")] == ["ada@example.org", None]
    assert (a.states(), b.states()) == ({}, {})


def test_a_renamed_column_takes_along_what_waits(make_on: MakeReplica, kind: str, other: str) -> None:
    a, b = make_on(kind), make_on(other)
    a.write("INSERT INTO customer (id, name, phone) VALUES (1, 'Ada', '1'), (2, 'Bob', '2')")
    settle(a, b)
    a.write("UPDATE customer SET phone = '11' WHERE id = 1")
    b.write("UPDATE customer SET phone = '22' WHERE id = 2")
    a.write("ALTER TABLE customer RENAME COLUMN phone TO mobile")
    assert enrol.renew(a.database, a.remote, rules=RENAMED).renamed == ["customer.mobile"]
    settle(a, b)
    assert [row[2] for row in a.rows("customer")] == [row[2] for row in b.rows("customer")] == ["11", "22"]


def test_edits_that_no_trigger_saw_are_found(make_on: MakeReplica, kind: str, other: str) -> None:
    a, b = make_on(kind), make_on(other)
    a.write("INSERT INTO customer (id, name, phone, credit) VALUES (1, 'x', '1', 12.50), (2, 'y', '2', 0.10)")
    settle(a, b)
    lose_triggers(a, kind)
    a.write("UPDATE customer SET phone = 'unseen' WHERE id = 1")
    a.write("INSERT INTO customer (id, name) VALUES (3, 'unseen')")
    enrol.renew(a.database, a.remote)
    a.pull()
    assert a.outbox()[0]["fields"] == '{"phone":"unseen"}'
    assert [row["kind"] for row in a.outbox()] == ["update", "backfill"]
    settle(a, b)
    assert [row[:3] for row in b.rows("customer")] == [(1, "x", "unseen"), (2, "y", "2"), (3, "unseen", None)]


def lose_triggers(replica: Replica, kind: str) -> None:
    if kind == "sqlite":
        for event in ("insert", "update", "rekey", "delete"):
            replica.write(f"DROP TRIGGER backhaul_{event}_customer")
    else:
        for name in ("backhaul_row", "backhaul_update", "backhaul_truncate"):
            replica.write(f"DROP TRIGGER {name} ON customer")


COUNTED = """
    CREATE TABLE customer (id TEXT PRIMARY KEY, visits INTEGER, name TEXT);
    INSERT INTO customer VALUES ('a', 10, 'x'), ('b', 10, 'x');
"""


def test_what_was_counted_unseen_is_told_apart_only_where_nobody_else_has_counted(
    make_on: MakeReplica, kind: str, other: str
) -> None:
    """What the counter was before is kept nowhere; `init` names the column, so that somebody looks."""
    rules = {"customer": Rules(merge={"visits": "counter"})}
    a, b = make_on(kind, schema=COUNTED, rules=rules), make_on(other, schema=COUNTED, rules=rules)
    settle(a, b)
    lose_triggers(a, kind)
    a.write("UPDATE customer SET visits = visits - 3")
    b.write("UPDATE customer SET visits = visits + 5 WHERE id = 'b'")
    b.write("UPDATE customer SET name = 'of no concern'")
    b.sync()
    assert enrol.renew(a.database, a.remote, rules=rules).uncertain == ["customer.visits"]
    b.write("UPDATE customer SET visits = visits + 1 WHERE id = 'a'")
    a.sync()
    settle(a, b)
    assert a.rows("customer") == b.rows("customer") == [("a", 8, "of no concern"), ("b", 15, "of no concern")]
