"""What the triggers write into the outbox."""

from __future__ import annotations

import math
import sqlite3

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from sqlalchemy.pool import StaticPool

from backhaul.replica import capture, checkpoint, tables
from backhaul.replica.capture import fields_expression, key_expression
from backhaul.wire import Value, canonical_key, from_plain, to_plain
from tests.replicas import Replica, captured
from tests.unit.replica.conftest import MakeReplica


@pytest.fixture
def replica(make: MakeReplica) -> Replica:
    return make()


def test_an_insert_is_captured_with_all_its_fields(replica: Replica) -> None:
    replica.write("INSERT INTO customer (id, name) VALUES (7, 'Ada')")
    fields = {"name": "Ada", "phone": None, "credit": None, "photo": None}
    assert captured(replica) == [("customer", "insert", [7], fields)]


def test_an_update_is_captured_with_the_changed_fields_alone(replica: Replica) -> None:
    replica.write("INSERT INTO customer (id, name, phone) VALUES (7, 'Ada', '1')")
    replica.write("UPDATE customer SET name = 'Ada', phone = NULL WHERE id = 7")
    assert captured(replica)[1:] == [("customer", "update", [7], {"phone": None})]


def test_an_update_that_changes_nothing_is_no_change(replica: Replica) -> None:
    replica.write("INSERT INTO customer (id, name) VALUES (7, 'Ada')")
    replica.write("UPDATE customer SET name = 'Ada'")
    assert len(captured(replica)) == 1


def test_one_and_one_point_nought_are_two_values_where_a_column_has_no_affinity(make: MakeReplica) -> None:
    replica = make("loose", schema="CREATE TABLE t (id INTEGER PRIMARY KEY, anything)")
    replica.write("INSERT INTO t VALUES (1, 1)")
    replica.write("UPDATE t SET anything = 1.0")
    assert captured(replica)[1:] == [("t", "update", [1], {"anything": 1.0})]
    assert '"anything":1.0' in replica.outbox()[1]["fields"]


def test_a_delete_is_captured_by_its_key(replica: Replica) -> None:
    replica.write("INSERT INTO line VALUES (1, 2, 'tea')")
    replica.write("DELETE FROM line")
    assert captured(replica)[1:] == [("line", "delete", [1, 2], None)]


def test_a_change_of_the_key_is_a_delete_and_an_insert(replica: Replica) -> None:
    replica.write("INSERT INTO line VALUES (1, 2, 'tea')")
    replica.write("UPDATE line SET position = 3")
    assert captured(replica)[1:] == [
        ("line", "delete", [1, 2], None),
        ("line", "insert", [1, 3], {"what": "tea"}),
    ]


def test_a_key_that_is_changed_under_the_name_rowid_is_captured_too(replica: Replica) -> None:
    replica.write("INSERT INTO customer (id, name) VALUES (7, 'Ada')")
    replica.write("UPDATE customer SET rowid = 8")
    assert [(kind, key) for _, kind, key, _ in captured(replica)[1:]] == [("delete", [7]), ("insert", [8])]


def test_a_rolled_back_transaction_leaves_no_change(replica: Replica) -> None:
    replica.app.execute("INSERT INTO customer (id, name) VALUES (7, 'Ada')")
    replica.app.rollback()
    assert captured(replica) == []


def test_bulk_statements_upserts_and_other_connections_are_captured(replica: Replica) -> None:
    other = sqlite3.connect(replica.path)
    with other:
        other.executemany("INSERT INTO customer (id, name) VALUES (?, ?)", [(n, f"c{n}") for n in range(3)])
        other.execute("UPDATE customer SET phone = '0'")
        other.execute("INSERT INTO customer (id, name) VALUES (1, 'x') ON CONFLICT DO UPDATE SET name = excluded.name")
    other.close()
    assert [kind for _, kind, _, _ in captured(replica)] == ["insert"] * 3 + ["update"] * 4


def test_muted_changes_are_not_captured_and_only_in_that_transaction(replica: Replica) -> None:
    with replica.database.writing() as connection:
        checkpoint.mute(connection)
        connection.execute(text("INSERT INTO customer (id, name) VALUES (1, 'pulled')"))
        checkpoint.unmute(connection)
        connection.execute(text("INSERT INTO customer (id, name) VALUES (2, 'mine')"))
    assert [key for _, _, key, _ in captured(replica)] == [[2]]


def test_names_with_quotes_spaces_colons_and_other_scripts_are_captured(make: MakeReplica) -> None:
    schema = """CREATE TABLE "odd ""table"": ü" ("the 'key'" TEXT PRIMARY KEY, "a ""b"":c %s ?" TEXT, "\\" INTEGER);"""
    replica = make("odd", schema=schema)
    replica.write("""INSERT INTO "odd ""table"": ü" VALUES ('k', 'v', 1)""")
    replica.write("""UPDATE "odd ""table"": ü" SET "a ""b"":c %s ?" = 'w'""")
    name, key = 'odd "table": ü', ["k"]
    assert captured(replica) == [
        (name, "insert", key, {'a "b":c %s ?': "v", "\\": 1}),
        (name, "update", key, {'a "b":c %s ?': "w"}),
    ]


def test_each_change_has_the_time_it_was_made(replica: Replica) -> None:
    before = replica.clock.now()
    replica.write("INSERT INTO customer (id, name) VALUES (1, 'a'), (2, 'b')")
    rows = replica.outbox()
    assert len(rows) == 2
    assert all(before - 1 <= row["captured_at"] <= replica.clock.now() + 1 for row in rows)


scalars = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False).filter(lambda value: value != 0 or math.copysign(1, value) > 0),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
)


@settings(max_examples=300, deadline=None)
@example(values=[6.671767594166729e-302, 7.517990765926411e-61, 8.203807730433729e-06, 0.1, 1e300, 5e-324, 12.5])
@given(values=st.lists(scalars, min_size=1, max_size=6))
def test_every_value_round_trips_exactly(values: list[object]) -> None:
    import msgspec

    columns = [f"c{number}" for number in range(len(values))]
    connection = sqlite3.connect(":memory:")
    connection.execute(f"CREATE TABLE t ({', '.join(columns)})")
    connection.execute(f"INSERT INTO t VALUES ({', '.join('?' * len(values))})", values)
    (said,) = connection.execute(f"SELECT CAST({fields_expression(columns, 't')} AS BLOB) FROM t").fetchone()
    connection.close()
    back = msgspec.json.decode(said, type=dict[str, Value])
    assert [to_plain(back[column]) for column in columns] == values
    assert [type(to_plain(back[column])) for column in columns] == [type(value) for value in values]


@settings(max_examples=300, deadline=None)
@given(
    values=st.lists(
        st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(st.characters(exclude_categories=["Cs"])), st.binary()),
        min_size=1,
        max_size=3,
    )
)
def test_a_key_has_the_text_that_the_server_gives_it(values: list[object]) -> None:
    columns = [f"c{number}" for number in range(len(values))]
    connection = sqlite3.connect(":memory:")
    connection.execute(f"CREATE TABLE t ({', '.join(columns)})")
    connection.execute(f"INSERT INTO t VALUES ({', '.join('?' * len(values))})", values)
    (key,) = connection.execute(f"SELECT {key_expression(columns, 't')} FROM t").fetchone()
    connection.close()
    assert key == canonical_key([from_plain(value) for value in values])


def test_an_altered_table_and_a_lost_trigger_are_noticed(replica: Replica) -> None:
    def altered() -> list[str]:
        with replica.database.reading() as connection:
            return tables.altered(connection, tables.all_tracked(connection))

    assert altered() == []
    replica.write("CREATE INDEX by_name ON customer (name)")
    assert altered() == []
    replica.write("ALTER TABLE customer ADD COLUMN email TEXT")
    assert altered() == ["customer"]
    replica.write("DROP TRIGGER backhaul_delete_line")
    assert altered() == ["customer", "line"]


def test_trigger_statements_need_no_more_than_sqlite_has(replica: Replica) -> None:
    with replica.database.reading() as connection:
        (tracked, *_) = tables.all_tracked(connection)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    assert engine.dialect.name == "sqlite"
    assert len(capture.trigger_statements(tracked.table)) == 4
    engine.dispose()
