"""A parked row gets a key that nobody has, and everything that refers to it follows."""

from __future__ import annotations

from typing import Any

import pytest

from backhaul.errors import Misused, Refused, TryLater, Unreachable
from backhaul.replica import apply, blocks, outbox, parked, rekeying, remap
from backhaul.replica.reconcile import compare
from backhaul.server.memory import MemoryRemote
from tests.replicas import SHOP, Replica
from tests.unit.replica.conftest import MakeReplica

FAMILY = """
    CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT, boss INTEGER REFERENCES person (id));
    CREATE TABLE badge (person INTEGER REFERENCES person (id), kind TEXT, text BLOB, PRIMARY KEY (person, kind));
    CREATE TABLE stamp (
        id TEXT PRIMARY KEY, person INTEGER, kind TEXT, FOREIGN KEY (person, kind) REFERENCES badge (person, kind));
    CREATE TABLE log (id TEXT PRIMARY KEY, what TEXT);
"""


def again(replica: Replica, *ops: str) -> list[tuple[str, int]]:
    done = remap.remap(replica.database, replica.remote, ops, now=replica.clock.now())
    return [(one.table, one.old) for one in done]


def settled(*replicas: Replica) -> None:
    for one in (*replicas, *replicas):
        one.sync()
    for one in replicas:
        assert one.parked() == []
        assert compare(one.database, one.remote, context=one.context).equal


def two_customers(make: MakeReplica, schema: str = SHOP) -> tuple[Replica, Replica]:
    a, b = make("a", schema=schema), make("b", schema=schema)
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.write("INSERT INTO invoice VALUES (1, 1, 10)")
    a.write("INSERT INTO line VALUES (1, 1, 'of a'), (1, 2, 'of a')")
    a.sync()
    b.write("INSERT INTO customer (id, name) VALUES (1, 'Bob')")
    b.write("INSERT INTO invoice VALUES (1, 1, 20)")
    b.write("INSERT INTO line VALUES (1, 1, 'of b'), (1, 3, 'of b')")
    b.sync()
    return a, b


def test_a_row_its_references_and_what_is_keyed_by_them_move_together(make: MakeReplica) -> None:
    a, b = two_customers(make)
    assert sorted(again(b)) == [("customer", 1), ("invoice", 1)]
    settled(a, b)
    assert a.rows("customer") == [(1, "Ada", None, None, None), (2, "Bob", None, None, None)]
    assert a.rows("invoice") == [(1, 1, 10), (2, 2, 20)]
    assert a.rows("line") == [(1, 1, "of a"), (1, 2, "of a"), (2, 1, "of b"), (2, 3, "of b")]


def test_references_to_the_row_itself_and_by_several_columns_follow(make: MakeReplica) -> None:
    a, b = make("a", schema=FAMILY), make("b", schema=FAMILY)
    a.write("INSERT INTO person VALUES (1, 'Ada', 1), (2, 'Ann', 1)")
    a.write("INSERT INTO badge VALUES (1, 'gold', NULL)")
    a.sync()
    b.write("INSERT INTO person VALUES (1, 'Bob', 1)")
    b.write("INSERT INTO person VALUES (7, 'Ben', 1)")
    b.write("INSERT INTO badge VALUES (1, 'gold', x'00ff')")
    b.write("INSERT INTO stamp VALUES ('s', 1, 'gold')")
    b.sync()
    assert again(b) == [("person", 1)]
    assert b.rows("person") == [(1, "Ada", 1), (2, "Ann", 1), (7, "Ben", 8), (8, "Bob", 8)]
    assert b.rows("badge") == [(1, "gold", None), (8, "gold", b"\x00\xff")]
    assert b.rows("stamp") == [("s", 8, "gold")]
    settled(a, b)
    assert a.rows("stamp") == b.rows("stamp")
    assert a.rows("person") == b.rows("person")


def test_what_was_changed_since_moves_too_and_nothing_else_does(make: MakeReplica) -> None:
    a, b = two_customers(make)
    b.write("UPDATE customer SET phone = '7' WHERE id = 1")
    b.write("UPDATE invoice SET customer_id = 1, total = 21")
    b.write("DELETE FROM line WHERE position = 3")
    b.write("INSERT INTO customer (id, name) VALUES (9, 'untouched')")
    again(b)
    settled(a, b)
    assert sorted(row[:3] for row in a.rows("customer")) == [(1, "Ada", None), (9, "untouched", None), (10, "Bob", "7")]
    assert a.rows("line") == [(1, 1, "of a"), (1, 2, "of a"), (2, 1, "of b")]
    assert a.rows("invoice") == [(1, 1, 10), (2, 10, 21)]


def test_rows_that_another_replica_made_under_the_old_key_stay_with_its_record(make: MakeReplica) -> None:
    a, b = two_customers(make)
    a.write("INSERT INTO invoice VALUES (5, 1, 50)")
    a.sync()
    b.sync()
    again(b)
    settled(a, b)
    assert (5, 1, 50) in b.rows("invoice")


def test_a_table_that_is_not_synced_follows(make: MakeReplica) -> None:
    schema = SHOP + "CREATE TABLE local (x REAL PRIMARY KEY, customer INTEGER REFERENCES customer (id));"
    a, b = two_customers(make, schema)
    b.write("INSERT INTO local VALUES (0.5, 1)")
    again(b)
    assert b.rows("local") == [(0.5, 2)]
    settled(a, b)


def test_a_transaction_goes_out_whole_under_the_new_key(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()
    b.app.execute("UPDATE backhaul_replica SET group_id = 'g'")
    b.app.execute("INSERT INTO customer (id, name) VALUES (1, 'Bob')")
    b.app.execute("INSERT INTO customer (id, name) VALUES (3, 'Bea')")
    b.app.execute("UPDATE backhaul_replica SET group_id = NULL")
    b.app.commit()
    b.sync()
    assert len(b.parked()) == 2
    assert again(b) == [("customer", 1)]
    settled(a, b)
    assert [row[1] for row in a.rows("customer")] == ["Ada", "Bea", "Bob"]


def test_only_a_taken_key_is_given_another_one(make: MakeReplica) -> None:
    _, b = two_customers(make)
    other = next(row for row in b.parked() if row["reason"] != "key-taken")
    with pytest.raises(Misused, match="no other key"):
        again(b, other["op_id"])
    taken = next(row for row in b.parked() if row["table_name"] == "customer")
    assert again(b, taken["op_id"]) == [("customer", 1)]


class Interrupted(MemoryRemote):
    """Something happens between the server's answer about records and its arrival."""

    happens: Any

    def records(self, keys: Any) -> Any:
        found = super().records(keys)
        self.happens()
        return found


def interrupt(replica: Replica, happens: Any) -> None:
    assert isinstance(replica.remote, MemoryRemote)
    remote = Interrupted(replica.remote.server, replica.remote.replica)
    remote.happens = happens
    replica.remote = remote


def test_nothing_is_changed_when_the_server_cannot_be_asked(make: MakeReplica) -> None:
    _, b = two_customers(make)
    before = (b.rows("customer"), b.rows("line"), b.outbox())

    def unreachable() -> None:
        raise Unreachable

    interrupt(b, unreachable)
    with pytest.raises(Unreachable):
        again(b)
    assert (b.rows("customer"), b.rows("line"), b.outbox()) == before


def test_what_the_app_writes_meanwhile_moves_too(make: MakeReplica) -> None:
    a, b = two_customers(make)
    more = iter(range(2))

    def write() -> None:
        for number in more:
            b.write("INSERT INTO invoice VALUES (?, 1, 5)", 70 + number)
            return

    interrupt(b, write)
    again(b)
    assert {row[1] for row in b.rows("invoice") if row[0] >= 70} == {2}
    b.sync()
    again(b)
    settled(a, b)


def test_dependents_on_their_way_are_waited_for(make: MakeReplica) -> None:
    _, b = two_customers(make)
    b.write("UPDATE backhaul_outbox SET state = 'sent', send_seq = 99, hlc = 0 WHERE table_name = 'invoice'")
    with pytest.raises(TryLater, match="on their way"):
        again(b)


def test_a_server_without_numbers_changes_nothing(make: MakeReplica) -> None:
    _, b = two_customers(make)
    b.remote.blocks = lambda _wanted: []  # type: ignore[method-assign]
    with pytest.raises(Refused, match="no numbers"):
        again(b)


def test_of_a_table_with_blocks_the_new_key_is_one_of_ours(make: MakeReplica) -> None:
    schema = "CREATE TABLE ticket (id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT);"
    a, b = make("a", schema=schema), make("b", schema=schema)
    a.write("INSERT INTO ticket VALUES (5, 'by hand, of a')")
    b.write("INSERT INTO ticket VALUES (5, 'by hand, of b')")
    a.sync()
    b.sync()
    assert again(b) == [("ticket", 5)]
    b.write("INSERT INTO ticket (what) VALUES ('next')")
    settled(a, b)
    assert len({row[0] for row in a.rows("ticket")}) == 3


def test_a_thousand_rows_are_remapped(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    for one in (a, b):
        with one.app:
            rows = [(number, one.path.stem) for number in range(1, 1201)]
            one.app.executemany("INSERT INTO customer (id, name) VALUES (?, ?)", rows)
    a.sync()
    b.sync()
    assert len(again(b)) == 1200
    settled(a, b)
    assert len(a.rows("customer")) == 2400


def test_a_change_that_is_given_up_afterwards_leaves_the_others_record(make: MakeReplica) -> None:
    _, b = two_customers(make)
    taken = next(row for row in b.parked() if row["table_name"] == "customer")
    again(b, taken["op_id"])
    b.sync()
    parked.discard(b.database, b.remote, [])
    assert b.rows("invoice") == [(1, 1, 10)]
    assert [row[1] for row in b.rows("customer")] == ["Ada", "Bob"]


STEPS = [
    (outbox, "rewrite"),
    (outbox, "requeue"),
    (rekeying, "take_out"),
    (rekeying, "settle_in"),
    (apply, "lay_under"),
    (blocks, "turn"),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[1])
@pytest.mark.parametrize("when", ["before", "after"])
def test_cut_at_any_step_it_has_done_nothing_and_can_be_done_again(
    make: MakeReplica, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str], when: str
) -> None:
    a, b = two_customers(make)
    before = (b.rows("customer"), b.rows("invoice"), b.rows("line"), b.outbox())
    plain = getattr(*step)

    def cut(*given: Any, **named: Any) -> None:
        if when == "after":
            plain(*given, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(*step, cut)
        with pytest.raises(KeyboardInterrupt):
            again(b)
    assert (b.rows("customer"), b.rows("invoice"), b.rows("line"), b.outbox()) == before
    assert len(again(b)) == 2
    settled(a, b)
