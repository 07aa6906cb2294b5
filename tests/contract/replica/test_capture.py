"""What the triggers write into the outbox, on both databases."""

from __future__ import annotations

import pytest

from backhaul.replica import checkpoint, tables
from tests.contract.replica.conftest import MakeReplica
from tests.replicas import Replica, captured


@pytest.fixture
def replica(make: MakeReplica) -> Replica:
    return make()


def test_each_kind_of_change_is_captured(replica: Replica) -> None:
    replica.write("INSERT INTO customer (id, name, photo) VALUES (?, ?, ?)", 7, "Ada", b"\x00\xff")
    replica.write("UPDATE customer SET name = 'Ada', phone = '1' WHERE id = 7")
    replica.write("UPDATE customer SET name = name")
    replica.write("DELETE FROM customer")
    whole = {"name": "Ada", "phone": None, "credit": None, "photo": {"hex": "00ff"}}
    assert captured(replica) == [
        ("customer", "insert", [7], whole),
        ("customer", "update", [7], {"phone": "1"}),
        ("customer", "delete", [7], None),
    ]


def test_a_change_of_the_key_is_a_delete_and_an_insert(replica: Replica) -> None:
    replica.write("INSERT INTO tag VALUES ('a', 'one')")
    replica.write("UPDATE tag SET code = 'b'")
    assert captured(replica)[1:] == [("tag", "delete", ["a"], None), ("tag", "insert", ["b"], {"label": "one"})]


@pytest.mark.parametrize(
    "text", ["", '"\\\b\f\n\r\t\x01\x1f\x7f', "é ü 漢字 \U0001f6b2 \u2028 \ufeff", "'; --", "%s ?"]
)
def test_text_of_any_kind_is_captured_exactly_and_keys_have_the_servers_text(replica: Replica, text: str) -> None:
    replica.write("INSERT INTO tag VALUES (?, ?)", text, text)
    assert captured(replica) == [("tag", "insert", [text], {"label": text})]
    replica.push()
    assert replica.states() == {"acked": 1}
    with replica.database.reading() as connection:
        assert checkpoint.read(connection).given_out == 1
    replica.pull()
    assert replica.outbox() == []


def test_muted_changes_are_not_captured_and_only_in_that_transaction(replica: Replica) -> None:
    with replica.database.writing() as connection:
        checkpoint.mute(connection)
        connection.exec_driver_sql("INSERT INTO tag VALUES ('pulled', '')")
        checkpoint.unmute(connection)
        connection.exec_driver_sql("INSERT INTO tag VALUES ('mine', '')")
    replica.write("INSERT INTO tag VALUES ('later', '')")
    assert [key for _, _, key, _ in captured(replica)] == [["mine"], ["later"]]


def test_names_with_quotes_spaces_colons_and_other_scripts_are_captured(make: MakeReplica) -> None:
    schema = """CREATE TABLE "odd ""table"": ü" ("the 'key'" TEXT PRIMARY KEY, "a ""b"":c %s ?" TEXT, "\\" INTEGER);"""
    replica = make(schema=schema, before="""INSERT INTO "odd ""table"": ü" VALUES ('before', 'x', 1);""")
    replica.app.execute("""INSERT INTO "odd ""table"": ü" VALUES ('k', 'v', 1)""")
    replica.app.execute("""UPDATE "odd ""table"": ü" SET "a ""b"":c %s ?" = 'w' WHERE "the 'key'" = 'k'""")
    replica.app.commit()
    name = 'odd "table": ü'
    assert captured(replica) == [
        (name, "insert", ["k"], {'a "b":c %s ?': "v", "\\": 1}),
        (name, "update", ["k"], {'a "b":c %s ?': "w"}),
    ]
    replica.sync()
    assert replica.outbox() == []


def test_an_altered_table_and_a_lost_trigger_are_noticed(replica: Replica, kind: str) -> None:
    def altered() -> list[str]:
        with replica.database.reading() as connection:
            return tables.altered(connection, tables.all_tracked(connection))

    assert altered() == []
    replica.write("CREATE INDEX by_name ON customer (name)")
    assert altered() == []
    replica.write("ALTER TABLE customer ADD COLUMN email TEXT")
    assert altered() == ["customer"]
    if kind == "sqlite":
        replica.write("DROP TRIGGER backhaul_delete_line")
    else:
        replica.write("DROP TRIGGER backhaul_row ON line")
    assert altered() == ["customer", "line"]
