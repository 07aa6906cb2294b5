"""Counters, sets and texts between replicas on SQLite and on PostgreSQL, whichever of the two each is on."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from backhaul.errors import TableUnfit
from backhaul.replica import parked, reconcile
from backhaul.replica.strategies import Rules
from tests.replicas import Replica

SCHEMA = "CREATE TABLE article ({serial}, stock BIGINT, tags TEXT, notes TEXT);"
RULES = {"article": Rules(merge={"stock": "counter", "tags": "set", "notes": "text"})}


def article(replica: Replica) -> tuple[Any, ...]:
    (row,) = replica.asked("SELECT stock, tags, notes FROM article WHERE id = 1")
    return row


def equal(*replicas: Replica) -> None:
    for replica in replicas * 2:
        replica.sync()
    assert [article(replica) for replica in replicas] == [article(replicas[0])] * len(replicas)
    for replica in replicas:
        assert replica.states() == {}
        assert reconcile.compare(replica.database, replica.remote, context=replica.context).equal


@pytest.mark.parametrize("other", ["sqlite", "postgresql"])
def test_what_two_replicas_have_done_is_all_done(make_on, kind, other):
    ann, bob = (make_on(one, schema=SCHEMA, rules=RULES) for one in (kind, other))
    ann.write("INSERT INTO article (id, stock, tags, notes) VALUES (1, 10, '[\"a\", \"b\"]', 'a green box')")
    equal(ann, bob)
    assert article(bob)[1] == '["a","b"]'
    ann.write("UPDATE article SET stock = stock - 3, tags = '[\"a\",\"c\"]', notes = 'a big green box'")
    bob.write("UPDATE article SET stock = stock + 5, notes = 'a green box, open'")
    bob.write('UPDATE article SET tags = \'["a","b","d"]\', notes = \'a green box, wide open\'')
    bob.push()
    ann.pull()
    assert article(ann) == (12, '["a","c","d"]', "a big green box")
    equal(ann, bob)
    assert article(ann) == (12, '["a","c","d"]', "a big green box, wide open")


def test_what_cannot_be_used_is_parked_and_can_be_given_up(make, make_on):
    ann, bob = make(schema=SCHEMA, rules=RULES), make_on("sqlite", schema=SCHEMA, rules=RULES)
    ann.write("INSERT INTO article (id, stock, tags, notes) VALUES (1, 10, '[]', 'a box')")
    equal(ann, bob)
    ann.write("UPDATE article SET stock = 15, tags = 'none', notes = 'a bag'")
    bob.write("UPDATE article SET stock = stock + 1")
    bob.sync()
    ann.sync()
    assert [row["reason"] for row in ann.parked()] == ["value-invalid"]
    parked.discard(ann.database, ann.remote, [])
    assert article(ann) == (11, "[]", "a box")
    equal(ann, bob)


def test_decimals_are_counted_exactly_where_they_are_exact(make_on):
    schema = "CREATE TABLE account (id TEXT PRIMARY KEY, balance NUMERIC(12, 2));"
    rules = {"account": Rules(merge={"balance": "counter"})}
    ann, bob = (make_on("postgresql", schema=schema, rules=rules) for _ in range(2))
    ann.write("INSERT INTO account VALUES ('a', 0.10)")
    for replica in (ann, bob) * 2:
        replica.sync()
    for replica in (ann, bob):
        for _ in range(10):
            replica.write("UPDATE account SET balance = balance + 0.01")
    for replica in (ann, bob) * 2:
        replica.sync()
    for replica in (ann, bob):
        assert replica.asked("SELECT balance FROM account") == [(Decimal("0.30"),)]
        assert reconcile.compare(replica.database, replica.remote, context=replica.context).equal
    with pytest.raises(TableUnfit, match="has agreed on counter"):
        make_on("sqlite", schema=schema)
