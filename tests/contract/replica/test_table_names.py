"""Tables that are renamed while changes wait, on both databases and across them."""

from __future__ import annotations

from typing import Any

import pytest

from backhaul.errors import Refused, TableUnfit
from backhaul.replica import blocks, enrol, tables
from backhaul.replica.reconcile import compare
from backhaul.replica.strategies import Rules
from backhaul.server.memory import MemoryRemote, MemoryServer
from backhaul.wire import Page
from tests import disputes
from tests.contract.replica.conftest import MakeReplica
from tests.replicas import Replica

pytestmark = pytest.mark.alternating("sqlite", "postgresql")

CLIENT = {"client": Rules(formerly=["customer"])}
NOTE = "CREATE TABLE note (id TEXT PRIMARY KEY, body TEXT UNIQUE);"


class Silent(MemoryRemote):
    """Takes everything, and says nothing."""

    def push(self, ops: Any) -> Any:
        super().push(ops)
        raise Refused("no answer", problem="none", status=500)


def rename(replica: Replica, old: str = "customer", new: str = "client", rules: Any = None) -> enrol.Renewed:
    replica.write(f"ALTER TABLE {old} RENAME TO {new}")
    return enrol.renew(replica.database, replica.remote, rules=rules or {new: Rules(formerly=[old])})


def settle(*replicas: Replica) -> None:
    for _ in range(3):
        for replica in replicas:
            replica.sync()


def assert_equal(*replicas: Replica) -> None:
    settle(*replicas)
    for replica in replicas:
        assert replica.states() == {}
        compared = compare(replica.database, replica.remote, context=replica.context)
        assert compared.equal, compared


@pytest.fixture
def other(kind: str) -> str:
    return "postgresql" if kind == "sqlite" else "sqlite"


def test_a_table_that_is_renamed_while_changes_wait_takes_them_along(
    make_on: MakeReplica, kind: str, other: str
) -> None:
    a, b = make_on(kind), make_on(other)
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada'), (2, 'Bob')")
    settle(a, b)
    a.write("UPDATE customer SET phone = '1' WHERE id = 1")
    a.write("INSERT INTO customer (id, name) VALUES (3, 'Eve')")
    a.write("INSERT INTO invoice (id, customer_id) VALUES (7, 3)")
    a.write("ALTER TABLE customer RENAME TO client")
    a.write("DELETE FROM client WHERE id = 2")  # before init: captured under the old name
    renewed = enrol.renew(a.database, a.remote, rules=CLIENT)
    assert (renewed.renamed, renewed.gone, renewed.new) == (["client (was customer)"], [], [])
    assert [row["table_name"] for row in a.outbox()] == ["client", "client", "invoice", "client"]
    a.write("UPDATE client SET phone = '3' WHERE id = 3")
    received = a.pull()
    assert received.records == 0  # nothing is fetched anew
    settle(a, b)
    assert [row[:3] for row in b.rows("customer")] == [(1, "Ada", "1"), (3, "Eve", "3")]
    assert [row[:2] for row in b.rows("invoice")] == [(7, 3)]
    assert_equal(a, b)


def test_a_replica_that_has_not_renamed_the_table_yet_goes_on_in_both_directions(
    make_on: MakeReplica, kind: str, other: str
) -> None:
    a, b = make_on(kind), make_on(other)
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    settle(a, b)
    b.write("UPDATE customer SET phone = 'waits under the old name'")
    rename(a)
    settle(b, a)
    assert a.rows("client")[0][2] == "waits under the old name"
    a.write("UPDATE client SET phone = 'told under the old name'")
    a.write("INSERT INTO client (id, name) VALUES (2, 'Bob')")
    a.write("INSERT INTO invoice (id, customer_id) VALUES (1, 2)")
    b.write("INSERT INTO customer (id, name) VALUES (3, 'Eve')")
    b.write("INSERT INTO invoice (id, customer_id) VALUES (2, 3)")
    assert_equal(a, b)
    assert [row[:3] for row in b.rows("customer")] == [row[:3] for row in a.rows("client")]
    assert len(a.rows("client")) == 3
    enrol.renew(b.database, b.remote)  # without a rename, it says what it says
    b.write("DELETE FROM invoice WHERE id = 1")
    b.write("DELETE FROM customer WHERE id = 2")
    assert_equal(a, b)
    assert [row[0] for row in a.rows("client")] == [1, 3]
    b.write("UPDATE customer SET phone = 'renamed here, too' WHERE id = 3")
    rename(b)
    assert_equal(a, b)
    assert [row[:3] for row in a.rows("client")][1] == (3, "Eve", "renamed here, too")
    assert a.rows("client") == b.rows("client") or kind != other


def test_a_replica_that_comes_later_has_either_name(make: MakeReplica, make_on: MakeReplica, kind: str) -> None:
    a = make()
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    rename(a)
    a.sync()
    old = make()
    new = make_on(kind, schema=make_schema().replace("customer (", "client ("))
    assert_equal(a, old, new)
    assert [row[:2] for row in old.rows("customer")] == [row[:2] for row in new.rows("client")] == [(1, "Ada")]


def make_schema() -> str:
    from tests.contract.replica.conftest import SHOP

    return SHOP


@pytest.mark.parametrize("names", [["client"], ["client", "party"]])
def test_what_was_sent_before_goes_again_and_counts_once(
    make: MakeReplica, server: MemoryServer, names: list[str]
) -> None:
    rules = {"customer": Rules(merge={"visits": "counter"})}
    schema = "CREATE TABLE customer (id INTEGER PRIMARY KEY, visits INTEGER);"
    a, b = make(schema=schema, rules=rules), make(schema=schema, rules=rules)
    a.write("INSERT INTO customer (id, visits) VALUES (1, 0)")
    settle(a, b)
    a.write("UPDATE customer SET visits = visits + 5")
    honest = a.remote
    assert isinstance(honest, MemoryRemote)
    a.remote = Silent(server, honest.replica)
    with pytest.raises(Refused):
        a.push()
    a.remote = honest
    before = ["customer"]
    for name in names:
        rename(a, before[-1], name, {name: Rules(formerly=list(before))})
        before.append(name)
        a.write(f"UPDATE {name} SET visits = visits + 1")
    assert_equal(a, b)
    assert b.rows("customer") == a.rows(names[-1]) == [(1, 5 + len(names))]
    rename(b, "customer", names[-1], {names[-1]: Rules(formerly=before[:-1])})
    b.write(f"UPDATE {names[-1]} SET visits = visits + 1")
    assert_equal(a, b)
    assert a.rows(names[-1]) == [(1, 6 + len(names))]


def test_numbers_in_hand_stay_in_hand(make: MakeReplica, server: MemoryServer) -> None:
    ticket = "CREATE TABLE ticket ({counted}, what TEXT);"
    a, b = make(schema=ticket), make(schema=ticket)

    def draw(replica: Replica, table: str) -> int:
        number = int(replica.asked(f"INSERT INTO {table} (what) VALUES ('x') RETURNING id")[0][0])
        replica.app.commit()
        return number

    def left(replica: Replica, table: str) -> int:
        with replica.database.reading() as connection:
            return blocks.left(connection, [one.table for one in tables.all_tracked(connection)])[table]

    first = draw(a, "ticket")
    settle(a, b)
    before = left(a, "ticket")
    rename(a, "ticket", "pass")
    assert left(a, "pass") == before
    assert draw(a, "pass") == first + 1
    drawn = {draw(a, "pass") for _ in range(1_200)} | {draw(b, "ticket") for _ in range(1_200)}
    a.sync()
    b.sync()
    drawn |= {draw(a, "pass") for _ in range(1_200)} | {draw(b, "ticket") for _ in range(1_200)}
    assert len(drawn) == 4_800
    assert_equal(a, b)


def test_what_is_set_aside_comes_in_under_the_new_name(make_on: MakeReplica, kind: str) -> None:
    a, b = make_on(kind, schema=NOTE.replace(" UNIQUE", "")), make_on(kind, schema=NOTE)
    a.write("INSERT INTO note VALUES ('x', 'same'), ('y', 'same')")
    a.sync()
    b.pull()
    assert b.asked("SELECT table_name, count(*) FROM backhaul_aside GROUP BY table_name") == [("note", 1)]
    rename(b, "note", "remark")
    assert b.asked("SELECT table_name, count(*) FROM backhaul_aside GROUP BY table_name") == [("remark", 1)]
    a.write("UPDATE note SET body = 'other' WHERE id = 'x'")
    a.sync()
    assert_equal(a, b)
    assert b.rows("remark") == [("x", "other"), ("y", "same")]


def test_documents_of_texts_go_along(make: MakeReplica) -> None:
    rules = {"note": Rules(merge={"body": "text"})}
    schema = NOTE.replace(" UNIQUE", "")
    a, b = make(schema=schema, rules=rules), make(schema=schema, rules=rules)
    a.write("INSERT INTO note VALUES ('n', 'a green box')")
    settle(a, b)
    a.write("UPDATE note SET body = 'a green big box'")
    a.sync()
    b.pull()
    b.write("UPDATE note SET body = 'a very green big box'")
    rename(b, "note", "remark")
    a.write("UPDATE note SET body = 'a green big box!'")
    assert_equal(a, b)
    assert a.rows("note") == b.rows("remark") == [("n", "a very green big box!")]


@pytest.mark.parametrize("choice", ["mine", "theirs"])
def test_conflicts_are_about_the_new_name(make: MakeReplica, choice: str) -> None:
    schema, rules = disputes.SCHEMA, disputes.RULES
    a, b = disputes.populate(make(schema=schema, rules=rules), make(schema=schema, rules=rules))
    number = disputes.contested(a, b)
    rename(b, "note", "remark")
    (entry,) = disputes.entries(b, number)
    assert (entry.table, entry.theirs) == ("remark", {"body": "of a"})
    disputes.resolve(b, choice)
    assert_equal(a, b)
    stands = {"mine": "of b", "theirs": "of a"}
    assert a.rows("note") == b.rows("remark") == [("n", stands.pop(choice), "red")]
    rename(a, "note", "remark")
    disputes.undo(b, number)
    assert_equal(a, b)
    assert a.rows("remark") == b.rows("remark") == [("n", *stands.values(), "red")]


def test_an_aggregate_whose_root_is_renamed_stays_one(make: MakeReplica) -> None:
    schema, rules = disputes.SCHEMA, disputes.RULES
    a, b = disputes.populate(make(schema=schema, rules=rules), make(schema=schema, rules=rules))
    b.write("UPDATE invoice SET total = 8 WHERE id = 'i'")
    a.write("UPDATE line SET amount = 9 WHERE id = 'l1'")
    a.sync()
    b.sync()
    number = disputes.only(b)
    b.write("ALTER TABLE invoice RENAME TO bill")
    renamed = {"bill": Rules(formerly=["invoice"], merge={"*": "manual"}), "line": Rules(aggregate="bill")}
    enrol.renew(b.database, b.remote, rules=renamed)
    assert {root for entry in disputes.entries(b, number) for root in entry.roots} == {("bill", '["i"]')}
    b.write("UPDATE line SET amount = 5 WHERE id = 'l2'")  # held with the conflict, also now
    b.sync()
    assert disputes.only(b) == number
    disputes.resolve(b, "theirs")
    assert_equal(a, b)
    assert a.rows("line") == b.rows("line")
    a.write("UPDATE line SET amount = 1 WHERE id = 'l1'")
    b.write("UPDATE bill SET total = 2 WHERE id = 'i'")
    a.sync()
    b.sync()
    assert len(disputes.open_numbers(b)) == 1
    disputes.resolve(b, "mine")
    assert_equal(a, b)


@pytest.mark.parametrize("most_held", [1, 5])
def test_what_was_fetched_before_is_applied_under_the_new_name(
    make: MakeReplica, server: MemoryServer, most_held: int
) -> None:
    """Staged, or in hand while another process runs `init`."""
    a, b = make(), make()
    for key in range(1, 10):
        a.write("INSERT INTO customer (id, name) VALUES (?, 'new')", key)
    a.sync()

    class Meanwhile(MemoryRemote):
        asked = 0

        def pull(self, cursor: str, limit: int, **more: Any) -> Page:
            page = super().pull(cursor, limit, **more)
            self.asked += 1
            if self.asked == 3:
                rename(b)
            return page

    honest = b.remote
    assert isinstance(honest, MemoryRemote)
    b.remote = Meanwhile(server, honest.replica)
    b.pull(limit=3, most_held=most_held)
    assert len(b.rows("client")) == 9
    b.remote = honest
    assert_equal(a, b)


def test_a_name_that_cannot_be_is_refused_and_nothing_is_changed(make_on: MakeReplica, kind: str) -> None:
    a, b = make_on(kind), make_on(kind)
    with pytest.raises(TableUnfit) as caught:
        enrol.renew(a.database, a.remote, rules={"customer": Rules(formerly=["tag"])})
    assert "'tag'" in str(caught.value)
    assert caught.value.where == ("tables", "customer", "formerly")
    rename(a)
    b.write("ALTER TABLE customer RENAME TO party")
    with pytest.raises(Refused) as refused:
        enrol.renew(b.database, b.remote, rules={"party": Rules(formerly=["customer"])})
    assert refused.value.problem == "schema-conflict"
    assert "customer was renamed to client here, not to party" in str(refused.value)
    assert b.asked("SELECT name FROM backhaul_table ORDER BY name")[0] == ("customer",)


def test_two_tables_that_both_have_records_never_become_one(make_on: MakeReplica, kind: str) -> None:
    a, b = make_on(kind), make_on(kind)
    a.write("INSERT INTO tag VALUES ('x', 'of tag')")
    settle(a, b)
    a.write("ALTER TABLE tag RENAME TO mark")
    assert enrol.renew(a.database, a.remote, names=["mark"]).gone == ["tag"]  # without a word: another table
    a.sync()
    b.write("ALTER TABLE tag RENAME TO mark")
    with pytest.raises(Refused) as refused:
        enrol.renew(b.database, b.remote, rules={"mark": Rules(formerly=["tag"])})
    assert "two tables here" in str(refused.value)
    assert enrol.renew(b.database, b.remote, names=["mark"]).gone == ["tag"]
    assert_equal(a, b)


def test_a_new_table_cannot_have_a_name_that_another_one_had(make_on: MakeReplica, kind: str) -> None:
    a = make_on(kind)
    rename(a, "tag", "mark")
    a.write("CREATE TABLE tag (code TEXT PRIMARY KEY, label TEXT)")
    with pytest.raises(Refused) as refused:
        enrol.renew(a.database, a.remote, names=["tag"])
    assert refused.value.problem == "schema-conflict"
    assert "mark was called tag before" in str(refused.value)
