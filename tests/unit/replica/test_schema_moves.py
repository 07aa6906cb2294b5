"""Tables that change while changes wait: columns and tables that are new, renamed or gone, here and elsewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backhaul.errors import Refused, TableAltered, TableUnfit
from backhaul.replica import backfill, enrol, outbox, parked, suspicion
from backhaul.replica.reconcile import compare
from backhaul.replica.strategies import Rules
from backhaul.server.memory import MemoryRemote, MemoryServer
from backhaul.wire import Page
from tests import disputes
from tests.replicas import Replica
from tests.unit.replica.conftest import MakeReplica

RENAMED = {"customer": Rules(renamed={"phone": "mobile"})}


def renew(replica: Replica, **options: Any) -> enrol.Renewed:
    return enrol.renew(replica.database, replica.remote, **options)


def assert_equal(*replicas: Replica) -> None:
    for _ in range(3):
        for replica in replicas:
            replica.sync()
    for replica in replicas:
        compared = compare(replica.database, replica.remote, context=replica.context)
        assert compared.moving is None
        assert compared.equal, compared
        assert replica.states() == {}


class Counting(MemoryRemote):
    """Counts the records that were fetched, and remembers what was asked."""

    def __init__(self, server: MemoryServer, replica: Any) -> None:
        super().__init__(server, replica)
        self.records_of_pulls: list[int] = []
        self.fields: set[str] = set()

    def pull(self, cursor: str, limit: int, **said: Any) -> Page:
        page = super().pull(cursor, limit, **said)
        self.records_of_pulls.append(len(page.records))
        return page

    def catch_up(self, cursor: str, limit: int, table: str, columns: Any) -> Page:
        page = super().catch_up(cursor, limit, table, columns)
        self.fields |= {name for record in page.records for name in record.fields}
        return page


def counting(replica: Replica, server: MemoryServer) -> Counting:
    assert isinstance(replica.remote, MemoryRemote)
    replica.remote = Counting(server, replica.remote.replica)
    return replica.remote


# ------------------------------------------------------------------------------------------------ new


def test_of_a_new_column_the_pull_fetches_that_column_and_nothing_else(make: MakeReplica, server: MemoryServer) -> None:
    a, b = make("a"), make("b")
    a.write("ALTER TABLE customer ADD COLUMN email TEXT")
    renew(a)
    for key in range(1, 31):
        a.write("INSERT INTO customer (id, name, email) VALUES (?, 'x', ?)", key, f"{key}@example.org")
    a.write("INSERT INTO invoice (id, customer_id) VALUES (1, 1)")
    a.sync()
    b.sync()
    b.write("UPDATE customer SET name = 'waits' WHERE id = 7")
    b.write("ALTER TABLE customer ADD COLUMN email TEXT")
    assert renew(b).new == ["customer.email"]
    remote = counting(b, server)
    b.pull(limit=7)  # in pages
    assert remote.records_of_pulls == [0]
    assert remote.fields == {"email"}
    assert {row[0]: row[-1] for row in b.rows("customer")} == {key: f"{key}@example.org" for key in range(1, 31)}
    assert b.states()["pending"] == 1
    assert_equal(a, b)


def test_of_a_new_table_the_pull_fetches_that_table_and_nothing_else(make: MakeReplica, server: MemoryServer) -> None:
    a, b = make("a"), make("b")
    note = "CREATE TABLE note (id TEXT PRIMARY KEY, said TEXT)"
    a.write(note)
    renew(a, names=["note"])
    for key in range(9):
        a.write("INSERT INTO note VALUES (?, 'x')", f"n{key}")
        a.write("INSERT INTO customer (id, name) VALUES (?, 'x')", key)
    a.sync()
    b.sync()
    b.write(note)
    renew(b, names=["note"])
    remote = counting(b, server)
    b.pull()
    assert remote.records_of_pulls == [0]
    assert len(b.rows("note")) == 9
    assert_equal(a, b)


def test_a_value_that_is_given_up_and_that_the_server_never_had_is_gone_here(make: MakeReplica) -> None:
    a = make("a", schema="CREATE TABLE tag (name TEXT PRIMARY KEY, hue TEXT);")
    a.write("INSERT INTO tag VALUES ('t', 'red')")
    a.sync()
    a.write("ALTER TABLE tag ADD COLUMN size TEXT")
    renew(a)
    a.write("UPDATE tag SET size = 'large'")
    while backfill.advance(a.database, now=a.clock.now()):
        pass
    with a.database.writing() as connection:
        outbox.park_pending(connection, {row["id"]: "" for row in a.outbox()}, reason="malformed", now=0)
    parked.discard(a.database, a.remote, [row["op_id"] for row in a.parked()])
    assert a.rows("tag") == [("t", "red", None)]
    assert compare(a.database, a.remote, context=a.context).equal


def test_catching_up_goes_on_where_it_was_cut(make: MakeReplica, server: MemoryServer) -> None:
    a, b = make("a"), make("b")
    a.write("ALTER TABLE customer ADD COLUMN email TEXT")
    renew(a)
    for key in range(20):
        a.write("INSERT INTO customer (id, name, email) VALUES (?, 'x', 'e')", key)
    a.sync()
    b.sync()
    b.write("ALTER TABLE customer ADD COLUMN email TEXT")
    renew(b)

    class Cut(Counting):
        asked = 0

        def catch_up(self, cursor: str, limit: int, table: str, columns: Any) -> Page:
            self.asked += 1
            if self.asked == 3:
                raise Refused("cut", problem="internal", status=500)
            return super().catch_up(cursor, limit, table, columns)

    assert isinstance(b.remote, MemoryRemote)
    b.remote = Cut(server, b.remote.replica)
    with pytest.raises(Refused):
        b.pull(limit=5)
    done = sum(row[-1] == "e" for row in b.rows("customer"))
    assert 0 < done < 20
    b.pull(limit=5)
    assert sum(row[-1] == "e" for row in b.rows("customer")) == 20
    assert b.remote.asked == 5  # twice, the cut one, and the other two


def test_a_value_that_was_here_before_the_column_was_synced_loses_to_the_servers_and_fills_what_it_lacks(
    make: MakeReplica,
) -> None:
    a, b = make("a"), make("b")
    for key in (1, 2):
        a.write("INSERT INTO customer (id, name) VALUES (?, 'x')", key)
    a.sync()
    b.sync()
    for replica in (a, b):
        replica.write("ALTER TABLE customer ADD COLUMN grade TEXT DEFAULT 'new'")
    renew(a)
    a.sync()
    a.write("UPDATE customer SET grade = 'gold' WHERE id = 1")
    a.sync()
    renew(b)
    assert_equal(a, b)
    assert [row[-1] for row in b.rows("customer")] == ["gold", "new"]


# ------------------------------------------------------------------------------------------------ renamed


def test_a_column_that_is_renamed_while_changes_wait_takes_them_along(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name, phone) VALUES (1, 'Ada', '1'), (2, 'Bob', '2')")
    a.sync()
    b.sync()
    a.write("UPDATE customer SET phone = '11' WHERE id = 1")
    a.write("INSERT INTO customer (id, name, phone) VALUES (3, 'Eve', '3')")
    a.write("ALTER TABLE customer RENAME COLUMN phone TO mobile")
    a.write("UPDATE customer SET mobile = '22' WHERE id = 2")  # before init
    assert renew(a, rules=RENAMED).renamed == ["customer.mobile"]
    assert [json.loads(row["fields"]).get("mobile") for row in a.outbox()] == ["11", "3", "22"]
    a.sync()
    b.sync()
    assert {row[0]: row[2] for row in b.rows("customer")} == {1: "11", 2: "22", 3: "3"}
    assert_equal(a, b)


def test_a_replica_that_has_not_renamed_the_column_yet_goes_on_as_before(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name, phone) VALUES (1, 'Ada', '1')")
    a.sync()
    b.sync()
    b.write("UPDATE customer SET phone = 'sent under the old name'")
    a.write("ALTER TABLE customer RENAME COLUMN phone TO mobile")
    renew(a, rules=RENAMED)
    b.sync()
    a.sync()
    assert a.rows("customer")[0][2] == "sent under the old name"
    a.write("UPDATE customer SET mobile = 'told under the old name'")
    assert_equal(a, b)
    assert b.rows("customer")[0][2] == "told under the old name"
    b.write("UPDATE customer SET phone = 'waits'")
    b.write("ALTER TABLE customer RENAME COLUMN phone TO mobile")
    renew(b, rules=RENAMED)
    assert_equal(a, b)
    assert a.rows("customer")[0][2] == "waits"


def test_what_was_sent_under_the_old_name_keeps_its_bytes_and_stands_over_what_is_pulled(
    make: MakeReplica, server: MemoryServer
) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name, phone) VALUES (1, 'Ada', '1')")
    a.sync()
    b.sync()

    class Silent(MemoryRemote):
        def push(self, ops: Any) -> Any:
            raise Refused("no answer", problem="none", status=500)

    honest = b.remote
    assert isinstance(honest, MemoryRemote)
    b.write("UPDATE customer SET phone = 'mine'")
    b.remote = Silent(server, honest.replica)
    with pytest.raises(Refused):
        b.push()
    a.write("UPDATE customer SET phone = 'theirs'")
    a.sync()
    b.remote = honest
    b.write("ALTER TABLE customer RENAME COLUMN phone TO mobile")
    renew(b, rules=RENAMED)
    b.pull()
    assert b.rows("customer")[0][2] == "mine"
    assert [(row["state"], row["fields"]) for row in b.outbox()] == [("sent", '{"phone":"mine"}')]
    assert_equal(a, b)


def test_a_column_may_be_renamed_twice(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name, phone) VALUES (1, 'Ada', '1')")
    a.sync()
    b.sync()
    a.write("ALTER TABLE customer RENAME COLUMN phone TO mobile")
    renew(a, rules=RENAMED)
    a.write("UPDATE customer SET mobile = '2'")
    a.write("ALTER TABLE customer RENAME COLUMN mobile TO tel")
    renew(a, rules={"customer": Rules(renamed={"phone": "mobile", "mobile": "tel"})})
    b.write("UPDATE customer SET name = 'Ada L.'")
    assert_equal(a, b)
    assert b.rows("customer") == [(1, "Ada L.", "2", None, None)]
    b.write("ALTER TABLE customer RENAME COLUMN phone TO tel")
    renew(b, rules={"customer": Rules(renamed={"phone": "tel"})})
    assert_equal(a, b)


def test_a_renaming_that_the_table_does_not_show_or_that_others_said_otherwise_is_refused(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    with pytest.raises(TableUnfit) as caught:
        renew(a, rules={"customer": Rules(renamed={"phone": "mobile"})})
    assert "phone" in str(caught.value)
    a.write("ALTER TABLE customer RENAME COLUMN phone TO mobile")
    renew(a, rules=RENAMED)
    b.write("ALTER TABLE customer RENAME COLUMN phone TO tel")
    with pytest.raises(Refused) as refused:
        renew(b, rules={"customer": Rules(renamed={"phone": "tel"})})
    assert refused.value.problem == "schema-conflict"
    assert b.app.execute("SELECT count(*) FROM backhaul_table").fetchone() == (3,)


# ------------------------------------------------------------------------------------------------ gone


def test_what_was_written_to_a_column_before_it_was_dropped_still_goes_out(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name, phone) VALUES (1, 'Ada', '1')")
    a.sync()
    b.sync()
    a.write("UPDATE customer SET phone = '2', name = 'Ada L.'")
    for event in ("insert", "update", "rekey", "delete"):  # SQLite drops no column that a trigger names
        a.write(f"DROP TRIGGER backhaul_{event}_customer")
    a.write("ALTER TABLE customer DROP COLUMN phone")
    renew(a)
    a.sync()
    b.sync()
    assert b.rows("customer") == [(1, "Ada L.", "2", None, None)]
    assert a.states() == {}
    b.write("UPDATE customer SET phone = '3'")
    b.sync()
    a.sync()
    assert a.rows("customer") == [(1, "Ada L.", None, None)]


def test_a_table_that_is_gone_stops_nothing_and_what_waits_of_it_goes_out(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.write("INSERT INTO invoice (id, customer_id, total) VALUES (1, 1, 9)")
    a.write("INSERT INTO line VALUES (1, 1, 'tea')")
    a.write("DROP TABLE line")
    assert renew(a).gone == ["line"]
    a.sync()
    b.sync()
    assert b.rows("line") == [(1, 1, "tea")]
    a.write("UPDATE customer SET name = 'Ada L.'")
    a.sync()
    b.sync()
    assert b.rows("customer")[0][1] == "Ada L."


# ------------------------------------------------------------------------------------------------ rebuilt

REBUILD = """
    CREATE TABLE copy (id INTEGER PRIMARY KEY, name TEXT NOT NULL, phone TEXT, credit NUMERIC(10, 2), photo BLOB);
    INSERT INTO copy SELECT * FROM customer;
    DROP TABLE customer;
    ALTER TABLE copy RENAME TO customer;
"""


def test_what_was_edited_while_a_rebuilt_table_had_no_triggers_is_sent_as_real_edits(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    for key in range(1, 6):
        a.write("INSERT INTO customer (id, name, phone, credit) VALUES (?, 'x', '1', 12.50)", key)
    a.sync()
    b.sync()
    a.write("UPDATE customer SET name = 'captured' WHERE id = 4")
    a.app.executescript(REBUILD)
    a.write("UPDATE customer SET phone = 'unseen', credit = 0.1 WHERE id = 1")
    a.write("UPDATE customer SET phone = 'unseen' WHERE id = 2")
    a.write("INSERT INTO customer (id, name) VALUES (6, 'unseen')")
    b.write("UPDATE customer SET name = 'of another' WHERE id = 1")
    b.write("UPDATE customer SET name = 'of another' WHERE id = 3")
    b.sync()
    assert renew(a).tables == ["customer"]
    a.write("UPDATE customer SET phone = 'after init' WHERE id = 5")
    a.pull()
    found = [(row["key"], row["kind"], json.loads(row["fields"])) for row in a.outbox()]
    assert found[:2] == [("[4]", "update", {"name": "captured"}), ("[5]", "update", {"phone": "after init"})]
    assert found[2:4] == [("[1]", "update", {"phone": "unseen", "credit": 0.1}), ("[2]", "update", {"phone": "unseen"})]
    assert [(key, kind) for key, kind, _ in found[4:]] == [("[6]", "backfill")]
    assert_equal(a, b)
    assert {row[0]: row[1:4] for row in a.rows("customer")} == {
        1: ("of another", "unseen", 0.1),
        2: ("x", "unseen", 12.5),
        3: ("of another", "1", 12.5),
        4: ("captured", "1", 12.5),
        5: ("x", "after init", 12.5),
        6: ("unseen", None, None),
    }


def test_a_table_that_was_made_anew_empty_is_filled_again_and_deletes_nothing(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    for key in range(1, 6):
        a.write("INSERT INTO customer (id, name) VALUES (?, 'x')", key)
    a.sync()
    b.sync()
    a.app.executescript(REBUILD.replace("INSERT INTO copy SELECT * FROM customer;", ""))
    renew(a)
    assert_equal(a, b)
    assert len(a.rows("customer")) == 5


def test_the_looking_goes_on_where_it_was_cut_and_finds_nothing_twice(
    make: MakeReplica, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspicion, "CHUNK", 2)
    a, b = make("a"), make("b")
    for key in range(1, 8):
        a.write("INSERT INTO customer (id, name) VALUES (?, 'x')", key)
    a.sync()
    b.sync()
    a.app.executescript(REBUILD)
    a.write("UPDATE customer SET phone = 'unseen'")
    renew(a)

    class Cut(MemoryRemote):
        asked = 0

        def records(self, keys: Any) -> Any:
            self.asked += 1
            if self.asked == 3:
                raise Refused("cut", problem="internal", status=500)
            return super().records(keys)

    assert isinstance(a.remote, MemoryRemote)
    a.remote = Cut(server, a.remote.replica)
    with pytest.raises(Refused):
        a.pull()
    assert len(a.outbox()) == 4
    a.pull()
    assert len(a.outbox()) == 7
    assert_equal(a, b)
    assert {row[2] for row in b.rows("customer")} == {"unseen"}


def test_a_row_that_its_own_changes_explain_is_no_suspect(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name, phone) VALUES (1, 'x', '1'), (2, 'y', '2')")
    a.sync()
    b.sync()
    a.write("UPDATE customer SET phone = 'waits' WHERE id = 1")
    a.write("INSERT INTO customer (id, name) VALUES (3, 'waits')")
    a.app.executescript(REBUILD)
    renew(a)
    waiting = len(a.outbox())
    a.pull()
    assert len(a.outbox()) == waiting
    assert_equal(a, b)


# ------------------------------------------------------------------------------------------------ without a person


@pytest.mark.parametrize(
    ("statement", "harmless"),
    [
        ("ALTER TABLE customer ADD COLUMN email TEXT", True),
        ("ALTER TABLE customer ADD COLUMN grade TEXT NOT NULL DEFAULT 'new'", True),
        ("ALTER TABLE customer RENAME COLUMN phone TO mobile", False),
        ("DROP TRIGGER backhaul_update_customer", False),
        ("ALTER TABLE customer RENAME TO client", False),
        (REBUILD, False),
        ("CREATE INDEX by_name ON customer (name)", False),
    ],
)
def test_a_table_that_has_only_grown_is_renewed_by_whoever_finds_it(
    make: MakeReplica, statement: str, harmless: bool
) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()
    a.app.executescript(statement)
    assert enrol.renew_if_harmless(a.database, a.remote) is harmless
    if harmless:
        a.write("UPDATE customer SET name = 'Ada L.'")
        a.sync()
        b.sync()
        assert b.rows("customer")[0][1] == "Ada L."
    elif "INDEX" in statement:
        a.sync()  # an index is no alteration at all
    else:
        with pytest.raises(TableAltered):
            a.push()


def test_a_new_column_of_a_table_with_strategies_waits_for_one(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    some = {"phone": "max"}
    renew(a, rules={"customer": Rules(merge=some)})
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.write("ALTER TABLE customer ADD COLUMN stock INTEGER DEFAULT 0")
    assert not enrol.renew_if_harmless(a.database, a.remote, rules={"customer": Rules(merge=some)})
    with pytest.raises(TableAltered):
        a.push()
    counted = {"customer": Rules(merge=some | {"stock": "counter"})}
    assert enrol.renew_if_harmless(a.database, a.remote, rules=counted)
    b.write("ALTER TABLE customer ADD COLUMN stock INTEGER DEFAULT 0")
    assert enrol.renew_if_harmless(
        b.database, b.remote, rules={"customer": Rules(merge={"*": "lww", "stock": "counter"})}
    )
    a.sync()
    b.sync()
    for replica in (a, b):
        replica.write("UPDATE customer SET stock = stock + 2")
    assert_equal(a, b)
    assert a.rows("customer")[0][-1] == 4


def test_another_primary_key_for_a_known_table_changes_nothing_and_says_what_to_do(make: MakeReplica) -> None:
    make("a")
    schema = "CREATE TABLE customer (id INTEGER, name TEXT NOT NULL, PRIMARY KEY (id, name));"
    with pytest.raises(Refused) as caught:
        make("b", schema=schema)
    assert caught.value.problem == "schema-conflict"
    assert "primary key of customer" in str(caught.value)


@pytest.mark.parametrize("strategy", ["max", "manual", "server_wins"])
def test_a_replica_that_knows_nothing_of_a_new_strategy_loses_nothing(make: MakeReplica, strategy: str) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name, phone) VALUES (1, 'Ada', '1')")
    a.sync()
    b.sync()
    renew(a, rules={"customer": Rules(merge={"phone": strategy})})
    b.write("UPDATE customer SET phone = '2'")
    b.sync()
    a.sync()
    assert (a.rows("customer")[0][2], b.states()) == ("2", {})
    renew(b)
    b.write("UPDATE customer SET phone = '3'")
    assert_equal(a, b)
    assert a.rows("customer")[0][2] == "3"


# ------------------------------------------------------------------------------------------------ renamed and merged

NOTE = "CREATE TABLE note (id TEXT PRIMARY KEY, body TEXT)"


def noted(make: MakeReplica, strategy: str) -> tuple[Replica, Replica]:
    """Two replicas with one note."""
    a, b = make("a"), make("b")
    for replica in (a, b):
        replica.write(NOTE)
        renew(replica, names=["note"], rules={"note": Rules(merge={"body": strategy})})
    a.write("INSERT INTO note VALUES ('n', 'a green box')")
    a.sync()
    b.sync()
    return a, b


def rename_body(replica: Replica, strategy: str) -> None:
    replica.write("ALTER TABLE note RENAME COLUMN body TO remark")
    renew(replica, rules={"note": Rules(merge={"remark": strategy}, renamed={"body": "remark"})})


def test_a_text_column_that_is_renamed_keeps_its_documents(make: MakeReplica) -> None:
    a, b = noted(make, "text")
    a.write("UPDATE note SET body = 'a green big box'")
    a.sync()
    b.sync()
    b.write("UPDATE note SET body = 'a very green big box'")
    for replica in (a, b):
        rename_body(replica, "text")
    a.write("UPDATE note SET remark = 'a green big box!'")
    assert_equal(a, b)
    assert a.rows("note") == b.rows("note") == [("n", "a very green big box!")]


@pytest.mark.parametrize("choice", ["mine", "theirs"])
@pytest.mark.parametrize("sent_before", [False, True])
def test_a_conflict_about_a_column_that_is_renamed_is_about_the_new_name(
    make: MakeReplica, server: MemoryServer, choice: str, sent_before: bool
) -> None:
    a, b = noted(make, "manual")
    b.write("UPDATE note SET body = 'mine'")
    a.write("UPDATE note SET body = 'theirs'")
    a.sync()
    if sent_before:  # and its answer comes after the renaming

        class Silent(MemoryRemote):
            def push(self, ops: Any) -> Any:
                raise Refused("no answer", problem="none", status=500)

        honest = b.remote
        assert isinstance(honest, MemoryRemote)
        b.remote = Silent(server, honest.replica)
        with pytest.raises(Refused):
            b.push()
        b.remote = honest
    else:
        b.sync()
    for replica in (a, b):
        rename_body(replica, "manual")
    b.sync()
    (entry,) = disputes.entries(b, disputes.only(b))
    assert (entry.was, entry.mine, entry.theirs) == (
        {"remark": "a green box"},
        {"remark": "mine"},
        {"remark": "theirs"},
    )
    disputes.resolve(b, choice)
    assert_equal(a, b)
    assert a.rows("note") == b.rows("note") == [("n", choice)]
    disputes.undo(b, entry.number or 0)
    assert_equal(a, b)
    assert a.rows("note")[0][1] == {"mine": "theirs", "theirs": "mine"}[choice]


def test_a_resolved_conflict_is_undone_under_the_new_name(make: MakeReplica) -> None:
    a, b = noted(make, "manual")
    number = disputes.contested(a, b, mine="mine", theirs="theirs")
    disputes.resolve(b, "mine")
    assert_equal(a, b)
    for replica in (a, b):
        rename_body(replica, "manual")
    disputes.undo(b, number)
    assert_equal(a, b)
    assert a.rows("note") == [("n", "theirs")]


def test_a_replica_that_has_not_renamed_the_column_yet_is_told_of_a_conflict_under_its_own_name(
    make: MakeReplica,
) -> None:
    a, b = noted(make, "manual")
    rename_body(a, "manual")
    a.write("UPDATE note SET remark = 'theirs'")
    a.sync()
    b.write("UPDATE note SET body = 'mine'")
    b.push()
    (entry,) = disputes.entries(b, disputes.only(b))
    assert (entry.mine, entry.theirs) == ({"body": "mine"}, {"body": "theirs"})
    b.pull()
    disputes.resolve(b, "theirs")
    assert_equal(a, b)
    assert b.rows("note") == [("n", "theirs")]


def test_what_was_fetched_before_a_renaming_is_applied_under_the_new_name(
    make: MakeReplica, server: MemoryServer
) -> None:
    a, b = make("a"), make("b")
    for key in range(1, 10):
        a.write("INSERT INTO customer (id, name, phone) VALUES (?, 'x', 'old')", key)
    a.sync()
    b.sync()
    a.write("UPDATE customer SET phone = 'new'")
    a.sync()

    class Cut(MemoryRemote):
        asked = 0

        def pull(self, cursor: str, limit: int, **more: Any) -> Page:
            self.asked += 1
            if self.asked == 3:
                raise Refused("cut", problem="internal", status=500)
            return super().pull(cursor, limit, **more)

    honest = b.remote
    assert isinstance(honest, MemoryRemote)
    b.remote = Cut(server, honest.replica)
    with pytest.raises(Refused):
        b.pull(limit=3, most_held=1)
    assert {row[2] for row in b.rows("customer")} == {"old"}
    b.remote = honest
    b.write("ALTER TABLE customer RENAME COLUMN phone TO mobile")
    renew(b, rules=RENAMED)
    b.pull(limit=3)
    assert {row[2] for row in b.rows("customer")} == {"new"}
    assert_equal(a, b)
