"""Transactions of PostgreSQL: each is one group, whoever writes, and none is missed because it was slow to commit."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, make_url, text

from backhaul.errors import Misused
from backhaul.replica import enrol, outbox, parked
from backhaul.replica.hook import Hook
from backhaul.replica.inspection import find_tables
from backhaul.replica.strategies import Rules
from tests.contract.replica.conftest import MakeReplica
from tests.contract.replica.test_rounds import assert_equal
from tests.replicas import Replica

pytestmark = pytest.mark.alternating("sqlite", "postgresql")


@pytest.fixture
def replica(make_on: MakeReplica) -> Replica:
    return make_on("postgresql")


@pytest.fixture
def connect(replica: Replica) -> Iterator[Any]:
    url = replica.database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    opened: list[Any] = []

    def one() -> Any:
        opened.append(psycopg.connect(url))
        return opened[-1]

    yield one
    for connection in opened:
        connection.close()


def groups(replica: Replica) -> list[str | None]:
    return [row["group_id"] for row in replica.outbox()]


def test_each_transaction_is_a_group_of_its_own(replica: Replica, connect: Any) -> None:
    app = connect()
    app.execute("INSERT INTO tag VALUES ('a', '')")
    with app.transaction():  # a savepoint
        app.execute("INSERT INTO tag VALUES ('b', '')")
    app.commit()
    app.execute("INSERT INTO tag VALUES ('c', '')")
    app.commit()
    first, second, third = groups(replica)
    assert first == second != third
    assert None not in (first, third)


def test_a_slow_transaction_is_sent_whole_once_it_has_committed(replica: Replica, connect: Any) -> None:
    slow, quick = connect(), connect()
    slow.execute("INSERT INTO tag VALUES ('slow 1', '')")
    quick.execute("INSERT INTO tag VALUES ('quick 1', '')")
    quick.commit()
    assert replica.push().acked == 1
    slow.execute("INSERT INTO tag VALUES ('slow 2', '')")
    quick.execute("INSERT INTO tag VALUES ('quick 2', '')")
    quick.commit()
    slow.execute("INSERT INTO tag VALUES ('slow 3', '')")
    assert replica.push().acked == 1
    slow.commit()
    assert replica.push(batch=1).acked == 3
    rows = {row["key"]: row["version"] for row in replica.outbox()}
    assert rows['["slow 1"]'] == rows['["slow 2"]'] == rows['["slow 3"]'] > rows['["quick 2"]'] > rows['["quick 1"]']


def test_groups_whose_rows_interleave_are_claimed_whole(replica: Replica, connect: Any) -> None:
    one, other = connect(), connect()
    for number in range(3):
        one.execute("INSERT INTO tag VALUES (%s, '')", [f"one {number}"])
        other.execute("INSERT INTO tag VALUES (%s, '')", [f"other {number}"])
    other.commit()
    one.commit()
    with replica.database.writing() as connection:
        claimed = outbox.claim(connection, now=replica.clock.now(), limit=2, lease_ms=1)
    assert len(claimed) == 3
    assert len({change.group_id for change in claimed}) == 1


def test_many_writers_at_once_lose_nothing(replica: Replica, make_on: MakeReplica) -> None:
    url = replica.database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)

    def write(seed: int) -> None:
        chance = random.Random(seed)
        with closing(psycopg.connect(url)) as app:
            for turn in range(25):
                for step in range(chance.randint(1, 6)):
                    key = f"{seed}.{turn}.{step}"
                    app.execute("INSERT INTO tag VALUES (%s, %s)", [key, str(turn)])
                app.execute("UPDATE customer SET phone = %s WHERE id = %s", [str(turn), chance.randint(1, 3)])
                app.rollback() if chance.random() < 0.2 else app.commit()

    replica.write("INSERT INTO customer (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    writers = [threading.Thread(target=write, args=[seed]) for seed in range(8)]
    for thread in writers:
        thread.start()
    while any(thread.is_alive() for thread in writers):
        replica.push(batch=7)
    replica.push()
    other = make_on("sqlite")
    other.sync()
    assert len(other.rows("tag")) == len(replica.rows("tag")) > 100
    assert_equal((replica, other))


def test_the_trigger_waits_for_nobody(replica: Replica, connect: Any) -> None:
    app = connect()
    app.execute("SET lock_timeout = '1ms'")
    with replica.database.writing() as connection:
        connection.execute(text("SELECT 1 FROM backhaul_replica FOR UPDATE"))
        connection.execute(text("UPDATE backhaul_replica SET last_push_at = 1"))
        app.execute("INSERT INTO tag VALUES ('a', '')")
        app.commit()
    assert len(replica.outbox()) == 1


def test_a_value_that_cannot_be_told_fails_no_commit_and_is_shown(replica: Replica) -> None:
    replica.write("ALTER TABLE tag RENAME COLUMN label TO caption")
    replica.write("INSERT INTO tag VALUES ('a', '')")
    (row,) = replica.outbox()
    assert (row["state"], row["reason"], row["key"]) == ("parked", "not-captured", '["a"]')
    assert "label" in row["detail"]


def test_what_could_not_be_told_goes_out_as_the_row_is_by_then(make_on: MakeReplica) -> None:
    schema = "CREATE TABLE thing (id text PRIMARY KEY, a text, b text);"
    ann, bob = make_on("postgresql", schema=schema), make_on("postgresql", schema=schema)
    ann.write("INSERT INTO thing VALUES ('x', 'a', 'b'), ('z', 'a', 'b')")
    ann.sync()
    bob.sync()
    for replica in (ann, bob):
        replica.write("ALTER TABLE thing RENAME COLUMN b TO c")
    ann.write("UPDATE thing SET a = 'new a', c = 'new c' WHERE id = 'x'")
    ann.write("INSERT INTO thing VALUES ('y', 'a', 'b')")
    ann.write("UPDATE thing SET id = 'moved' WHERE id = 'z'")
    for replica in (ann, bob):
        enrol.renew(replica.database, replica.remote, rules={"thing": Rules(renamed={"b": "c"})})
    assert {row["reason"] for row in ann.parked()} == {"not-captured"}
    parked.retry(ann.database, [], now=ann.clock.now())
    ann.sync()
    bob.sync()
    assert bob.rows("thing") == [("moved", "a", "b"), ("x", "new a", "new c"), ("y", "a", "b")]
    assert_equal((ann, bob))


def test_a_truncate_that_cannot_be_told_fails_no_commit_and_cannot_be_sent(replica: Replica) -> None:
    replica.write("INSERT INTO tag VALUES ('a', '')")
    replica.write("ALTER TABLE tag RENAME COLUMN code TO sign")
    replica.write("TRUNCATE tag")
    (row,) = replica.parked()
    assert (row["reason"], row["kind"], row["key"]) == ("not-captured", "delete", "[]")
    replica.write("ALTER TABLE tag RENAME COLUMN sign TO code")
    with pytest.raises(Misused, match="not known"):
        parked.retry(replica.database, [], now=replica.clock.now())
    parked.discard(replica.database, replica.remote, [row["op_id"]])
    assert replica.parked() == []


def test_truncate_is_captured_as_deletes_and_copy_as_inserts(replica: Replica) -> None:
    with replica.app.cursor().copy("COPY tag FROM STDIN") as copy:
        copy.write("a\tone\nb\ttwo\n")
    replica.write("TRUNCATE tag")
    kinds = [(row["kind"], row["key"]) for row in replica.outbox()]
    assert sorted(kinds) == [("delete", '["a"]'), ("delete", '["b"]'), ("insert", '["a"]'), ("insert", '["b"]')]


def test_rows_of_partitions_are_captured_also_when_they_move(make_on: MakeReplica) -> None:
    schema = """
        CREATE TABLE reading (id text, year int, value int, PRIMARY KEY (id, year)) PARTITION BY RANGE (year);
        CREATE TABLE reading_old PARTITION OF reading FOR VALUES FROM (2000) TO (2020);
        CREATE TABLE reading_new PARTITION OF reading FOR VALUES FROM (2020) TO (2040);
    """
    ann, bob = make_on("postgresql", schema=schema), make_on("postgresql", schema=schema)
    ann.write("INSERT INTO reading VALUES ('a', 2010, 1), ('b', 2030, 2)")
    ann.write("UPDATE reading SET year = 2025 WHERE id = 'a'")
    ann.write("INSERT INTO reading_old VALUES ('c', 2001, 3)")
    ann.sync()
    bob.sync()
    assert bob.rows("reading") == [("a", 2025, 1), ("b", 2030, 2), ("c", 2001, 3)]
    assert_equal((ann, bob))


def test_a_user_without_rights_on_our_tables_is_captured(replica: Replica) -> None:
    replica.app.execute("DROP ROLE IF EXISTS clerk; CREATE ROLE clerk; GRANT INSERT, UPDATE ON tag TO clerk")
    replica.app.execute("SET ROLE clerk")
    replica.app.execute("INSERT INTO tag VALUES ('a', '')")
    replica.app.execute("RESET ROLE")
    assert len(replica.outbox()) == 1


def test_the_hook_rings_after_the_commit_of_what_wrote(replica: Replica) -> None:
    rung: list[int] = []
    engine = create_engine(make_url(replica.database.engine.url))
    hook = Hook(engine, lambda: rung.append(len(replica.outbox())))
    with engine.begin() as connection:
        connection.execute(text("SELECT 1"))
    assert rung == []
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO tag VALUES ('a', '')"))
        assert rung == []
    assert rung == [1]
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO tag VALUES ('b', '')"))
        connection.rollback()
    assert rung == [1]
    hook.remove()
    engine.dispose()


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("CREATE TABLE t (name text)", "no primary key"),
        ("CREATE TABLE t (id double precision PRIMARY KEY)", "fractional"),
        ("CREATE TABLE t (id numeric PRIMARY KEY)", "fractional"),
        ("CREATE TABLE t (id int PRIMARY KEY DEFERRABLE)", "DEFERRABLE"),
        ("CREATE TABLE t (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY)", "IDENTITY"),
        ("CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY) INHERITS (p)", "inherits"),
    ],
)
def test_a_table_that_cannot_be_synced_is_left_out_with_the_reason(
    make_on: MakeReplica, schema: str, reason: str
) -> None:
    fine = "CREATE TABLE fine (id uuid PRIMARY KEY, made int GENERATED ALWAYS AS (1) STORED);"
    replica = make_on("postgresql", schema=f"{schema}; {fine}")
    with replica.database.reading() as connection:
        found, unfit = find_tables(connection)
    assert [table.name for table in found] == ["fine"]
    assert [column.name for column in found[0].columns] == ["id"]
    assert any(reason in str(one) for one in unfit)
