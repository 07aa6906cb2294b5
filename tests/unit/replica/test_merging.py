"""Columns that are merged by what was done to them, from one replica's app to another's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backhaul.errors import Unreachable
from backhaul.replica import enrol, parked, push, reconcile, texts
from backhaul.replica.strategies import Rules
from backhaul.server.memory import MemoryRemote, MemoryServer
from tests.replicas import Replica, make_replica

SCHEMA = "CREATE TABLE article (id INTEGER PRIMARY KEY, stock INTEGER, tags TEXT, notes TEXT, name TEXT);"
RULES = {"article": Rules(merge={"stock": "counter", "tags": "set", "notes": "text"})}
Make = Callable[..., Replica]


@pytest.fixture
def server() -> Iterator[MemoryServer]:
    server = MemoryServer()
    yield server
    server.close()


@pytest.fixture
def make(tmp_path, server) -> Iterator[Make]:
    made: list[Replica] = []

    def make(before: str = "", rules: Any = RULES) -> Replica:
        path = tmp_path / f"{len(made)}.db"
        remote = MemoryRemote(server)
        made.append(make_replica(path, remote, schema=SCHEMA, code=server.enrol(), before=before, rules=rules))
        return made[-1]

    yield make
    for replica in made:
        replica.close()


@pytest.fixture
def ann(make) -> Replica:
    """With article 1: 10 in stock, two tags, a note; as everybody has it."""
    ann = make()
    ann.write("INSERT INTO article VALUES (1, 10, '[\"a\",\"b\"]', 'a green box', 'box')")
    ann.sync()
    return ann


@pytest.fixture
def bob(make, ann) -> Replica:
    bob = make()
    bob.sync()
    return bob


def article(replica: Replica) -> tuple[Any, ...]:
    (row,) = replica.app.execute("SELECT stock, tags, notes FROM article WHERE id = 1").fetchall()
    return row


def fields(replica: Replica) -> list[Any]:
    return [json.loads(row["fields"]) for row in replica.outbox() if row["fields"]]


def equal(*replicas: Replica) -> None:
    for replica in replicas * 2:
        replica.sync()
    rows = [replica.rows("article") for replica in replicas]
    assert rows.count(rows[0]) == len(rows)
    for replica in replicas:
        assert replica.states() == {}
        assert reconcile.compare(replica.database, replica.remote, context=replica.context).equal


def test_what_two_replicas_have_done_is_all_done(ann, bob):
    ann.write("UPDATE article SET stock = stock - 3, tags = '[\"a\",\"c\"]', notes = 'a big green box'")
    bob.write('UPDATE article SET stock = stock + 5, tags = \'["a","b","d"]\', notes = \'a green box, open\'')
    equal(ann, bob)
    assert article(ann) == (12, '["a","c","d"]', "a big green box, open")


def test_a_change_is_frozen_as_what_was_done_and_never_again(ann):
    ann.write("UPDATE article SET stock = 7, tags = '[\"c\", \"b\"]', name = 'crate'")
    before = fields(ann)
    assert before == [
        {"stock": {"was": 10, "now": 7}, "tags": {"was": '["a","b"]', "now": '["c", "b"]'}, "name": "crate"}
    ]
    ann.push()
    assert fields(ann) == [{"stock": {"add": -3}, "tags": {"put": ["c"], "cut": ["a"]}, "name": "crate"}]


def test_while_ours_is_unsettled_a_counter_and_a_set_show_both_and_others_show_ours(ann, bob):
    ann.write("UPDATE article SET stock = stock + 1, tags = '[\"a\",\"b\",\"x\"]', notes = 'a red box', name = 'ours'")
    bob.write("UPDATE article SET stock = stock + 100, tags = '[\"b\"]', notes = 'a green bag', name = 'theirs'")
    bob.push()
    ann.pull()
    assert article(ann) == (111, '["b","x"]', "a red box")
    assert ann.rows("article")[0][4] == "ours"
    equal(ann, bob)
    assert article(ann) == (111, '["b","x"]', "a red bag")


def test_edits_of_a_text_chain_while_they_wait(ann, bob):
    for said in ("a green box!", "a green box! It is", "one green box! It is full"):
        ann.write("UPDATE article SET notes = ?", said)
    bob.write("UPDATE article SET notes = 'a dark green box'")
    bob.push()
    ann.push()
    ann.write("UPDATE article SET notes = 'one green box! It is half full'")
    equal(ann, bob)
    assert article(bob)[2] == "one dark green box! It is half full"


def test_null_counts_as_nothing_and_becomes_empty(ann, bob):
    ann.write("UPDATE article SET stock = NULL, tags = NULL, notes = NULL")
    bob.write("UPDATE article SET stock = stock + 2")
    equal(ann, bob)
    assert article(bob) == (2, "[]", "")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("stock", 1.5),
        ("stock", "many"),
        ("stock", b"\x00"),
        ("tags", "not an array"),
        ("tags", '{"a": 1}'),
        ("tags", b"\xff"),
        ("tags", "[1e999]"),
        ("notes", b"\xff"),
    ],
)
def test_what_a_strategy_cannot_use_is_parked_and_the_rest_flows(ann, bob, column, value):
    ann.write(f"UPDATE article SET {column} = ?", value)
    ann.write("INSERT INTO article (id, stock) VALUES (2, 1)")
    ann.push()
    assert [row["reason"] for row in ann.parked()] == ["value-invalid"]
    bob.pull()
    assert [row[0] for row in bob.rows("article")] == [1, 2]
    assert ann.app.execute(f"SELECT {column} FROM article WHERE id = 1").fetchone()[0] == value
    parked.discard(ann.database, ann.remote, [])
    assert ann.rows("article") == bob.rows("article")


@pytest.mark.parametrize(("column", "value"), [("stock", "many"), ("tags", "none"), ("notes", b"\x00")])
def test_an_insert_that_a_strategy_cannot_use_is_parked_too(ann, column, value):
    ann.write(f"INSERT INTO article (id, {column}) VALUES (2, ?)", value)
    ann.push()
    assert [(row["kind"], row["reason"]) for row in ann.parked()] == [("insert", "value-invalid")]


def test_giving_up_a_parked_addition_gives_it_back(ann, bob):
    ann.write("UPDATE article SET stock = stock + 1")
    ann.sync()
    ann.write("UPDATE article SET tags = 'garbage', stock = stock + 50, notes = 'a box'")
    ann.push()
    assert article(ann) == (61, "garbage", "a box")
    bob.write("UPDATE article SET stock = stock + 7, notes = 'the green box'")
    bob.sync()
    ann.pull()
    parked.discard(ann.database, ann.remote, [])
    assert article(ann) == (18, '["a","b"]', "the green box")
    ann.write("UPDATE article SET stock = stock + 2, notes = 'the green box, shut'")
    equal(ann, bob)
    assert article(bob) == (20, '["a","b"]', "the green box, shut")


def test_an_addition_whose_answer_was_lost_counts_once(ann, bob):
    for _ in range(5):
        ann.write("UPDATE article SET stock = stock + 1")
        with pytest.raises(Unreachable):
            push.push(ann.database, Deaf(ann.remote), clock=ann.clock, context=ann.context)
        ann.pull()
        ann.app.execute("UPDATE backhaul_outbox SET next_at = 0")
        ann.app.commit()
        ann.push()
    equal(ann, bob)
    assert article(bob)[0] == 15


def test_rows_from_before_are_one_record_however_often_they_are_sent(make):
    before = "INSERT INTO article VALUES (1, 10, '[\"a\"]', 'a box', 'box');"
    ann, bob = make(before), make(before)
    ann.write("UPDATE article SET stock = stock + 1, notes = 'a big box', tags = '[\"a\",\"b\"]'")
    bob.write("UPDATE article SET stock = stock + 2, notes = 'a box, open', tags = '[]'")
    equal(ann, bob)
    assert article(ann) == (13, '["b"]', "a big box, open")
    ann.write("UPDATE article SET stock = stock + 4, notes = 'a very big box, open'")
    ann.app.execute("ALTER TABLE article ADD COLUMN colour TEXT")
    bob.app.execute("ALTER TABLE article ADD COLUMN colour TEXT")
    for replica in (ann, bob):
        enrol.renew(replica.database, replica.remote)
    equal(ann, bob)
    assert article(bob) == (17, '["b"]', "a very big box, open")


def test_a_record_that_is_made_again_starts_anew(ann, bob):
    ann.write("UPDATE article SET stock = stock + 5, notes = 'a blue box'")
    ann.sync()
    ann.write("DELETE FROM article")
    ann.write("INSERT INTO article VALUES (1, 1, '[\"z\"]', 'new', 'box')")
    ann.write("UPDATE article SET notes = 'newer'")
    equal(ann, bob)
    assert article(bob) == (1, '["z"]', "newer")
    with ann.database.reading() as connection:
        assert list(texts.of_record(connection, "article", "[1]")) == ["notes"]
    bob.write("DELETE FROM article")
    equal(ann, bob)
    for replica in (ann, bob):
        with replica.database.reading() as connection:
            assert texts.of_record(connection, "article", "[1]") == {}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "ann pulls", "ann's answer is lost", "ann pushes"]),
        st.integers(1, 9),
        st.sets(st.sampled_from("abc"), max_size=3),
    ),
    min_size=6,
    max_size=14,
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_what_is_shown_is_the_servers_value_and_what_waits(steps, server, ann, bob, shown_keys):
    """Whatever happened: after a pull, a counter is the server's value and every addition that it does not hold."""
    key = next(shown_keys)
    ann.sync()
    ann.write("INSERT INTO article (id, stock, tags) VALUES (?, 0, '[]')", key)
    ann.sync()
    bob.sync()
    total = 0
    for step, number, tags in steps:
        if step in ("ann", "bob"):
            writer = ann if step == "ann" else bob
            total += number
            writer.write(
                "UPDATE article SET stock = stock + ?, tags = ? WHERE id = ?", number, json.dumps([*tags]), key
            )
            if writer is bob:
                bob.sync()
        elif step == "ann pushes":
            ann.push()
        elif step == "ann's answer is lost":
            with pytest.raises(Unreachable) if waits(ann) else nullcontext():
                push.push(ann.database, Deaf(ann.remote), clock=ann.clock, context=ann.context)
            ann.write("UPDATE backhaul_outbox SET next_at = 0")
        else:
            ann.pull()
            if "sent" not in ann.states():  # of which nobody knows whether the server has it
                (there,) = ann.remote.records([("article", [key])])
                ((here,),) = ann.app.execute("SELECT stock FROM article WHERE id = ?", (key,)).fetchall()
                adds = [change["stock"] for change in unsettled(ann) if "stock" in change]
                assert here == there.fields["stock"] + sum(
                    said["add"] if "add" in said else said["now"] - said["was"] for said in adds
                )
    equal(ann, bob)
    assert ann.app.execute("SELECT stock FROM article WHERE id = ?", (key,)).fetchone() == (total,)


@pytest.fixture
def shown_keys():
    return iter(range(100, 10_000))


def waits(replica: Replica) -> bool:
    return any(row["state"] in ("pending", "sent") for row in replica.outbox())


def unsettled(replica: Replica) -> list[Any]:
    position = replica.app.execute("SELECT position FROM backhaul_replica").fetchone()[0]
    rows = [row for row in replica.outbox() if row["state"] != "acked" or row["version"] > position]
    return [json.loads(row["fields"]) for row in rows]


class Deaf:
    """Every push arrives, and no answer does."""

    def __init__(self, remote: Any) -> None:
        self._remote = remote

    def push(self, ops: Any) -> Any:
        self._remote.push(ops)
        raise Unreachable("the answer was lost")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._remote, name)


def test_of_max_the_greater_of_theirs_and_ours_is_shown(make):
    rules = {"article": Rules(merge={"stock": "max", "name": "min"})}
    ann, bob = make(rules=rules), make(rules=rules)
    ann.write("INSERT INTO article (id, stock, name) VALUES (1, 0, 'm')")
    ann.sync()
    bob.sync()
    ann.write("UPDATE article SET stock = 10, name = 'k'")
    bob.write("UPDATE article SET stock = 12, name = 'l'")
    bob.sync()
    ann.pull()
    assert ann.asked("SELECT stock, name FROM article") == [(12, "k")]
    equal(ann, bob)
    assert bob.asked("SELECT stock, name FROM article") == [(12, "k")]


def test_a_new_counter_that_another_replica_has_pulled_before_its_backfill_is_not_doubled(make):
    plain = {"article": Rules()}
    ann, bob = make(rules=plain), make(rules=plain)
    ann.write("INSERT INTO article (id) VALUES (1)")
    equal(ann, bob)
    counted = {"article": Rules(merge={"votes": "counter"})}
    for replica in (ann, bob):
        replica.write("ALTER TABLE article ADD COLUMN votes INTEGER DEFAULT 0")
        enrol.renew(replica.database, replica.remote, rules=counted)
    ann.write("UPDATE article SET votes = votes + 5")
    with ann.database.writing() as connection:
        connection.exec_driver_sql("UPDATE backhaul_table SET backfill = 'done'")
    ann.push()
    bob.pull()
    bob.push()
    with ann.database.writing() as connection:
        connection.exec_driver_sql("UPDATE backhaul_table SET backfill = 'pending'")
    equal(ann, bob)
    assert bob.asked("SELECT votes FROM article") == [(5,)]


def test_who_deletes_what_another_one_had_edited_unseen_gets_it_back(make):
    rules = {"article": Rules(deletes="edit_wins")}
    ann, bob = make(rules=rules), make(rules=rules)
    ann.write("INSERT INTO article (id, name) VALUES (1, 'a box')")
    equal(ann, bob)
    bob.write("UPDATE article SET name = 'of bob'")
    ann.write("UPDATE article SET name = 'of ann, and later'")
    ann.push()
    bob.push()
    ann.write("DELETE FROM article")
    equal(ann, bob)
    assert len(bob.rows("article")) == 1
