"""A replica that is put back to a backup asks the person again; whoever answers again doubles nothing. Over both
databases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backhaul.replica import mending, parked
from backhaul.replica.strategies import Rules
from tests.contract.replica.conftest import MakeReplica
from tests.disputes import all_equal, open_numbers, resolve
from tests.replicas import OUTBOX, PostgreSQLReplica, Replica

pytestmark = pytest.mark.alternating("sqlite", "postgresql")

SCHEMA = """
    CREATE TABLE article (id TEXT PRIMARY KEY, stock INTEGER, name TEXT, note TEXT);
    CREATE TABLE line (id TEXT PRIMARY KEY, article_id TEXT NOT NULL REFERENCES article (id), sold INTEGER);
"""
RULES = {"article": Rules(merge={"stock": "counter", "note": "manual"}), "line": Rules(merge={"sold": "counter"})}
REFUSED = f"UPDATE {OUTBOX} SET state = 'parked', reason = 'test', settled_at = 1, attempts = 1, op_id = 'op' || id"


@pytest.fixture
def pair(make: MakeReplica) -> tuple[Replica, Replica]:
    a, b = (make(schema=SCHEMA, rules=RULES) for _ in "ab")
    a.write("INSERT INTO article VALUES ('x', 10, 'box', 'first')")
    a.sync()
    b.sync()
    return a, b


def backup_of(replica: Replica) -> Callable[[], None]:
    """A backup of everything in the replica's database; call it to put it back."""
    if isinstance(replica, PostgreSQLReplica):
        tables = [row[0] for row in replica.asked("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        for table in tables:
            replica.write(f"CREATE TABLE saved_{table} AS TABLE {table}")

        def put_back() -> None:
            with replica.app.transaction():
                replica.app.execute("SELECT set_config('backhaul.muted', '1', true)")
                replica.app.execute("SET LOCAL session_replication_role = replica")
                for table in tables:
                    replica.app.execute(f"DELETE FROM {table}")
                    replica.app.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM saved_{table}")
                at = f"SELECT setval(pg_get_serial_sequence('{OUTBOX}', 'id'), max(id)) FROM {OUTBOX}"
                replica.app.execute(at)

        return put_back
    saved = "\n".join(replica.app.iterdump())

    def put_back_dump() -> None:
        replica.app.execute("PRAGMA foreign_keys = OFF")
        names = replica.asked("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        for (name,) in names:
            replica.app.execute(f'DROP TABLE "{name}"')
        replica.app.execute("DELETE FROM sqlite_sequence")
        replica.app.executescript(saved.replace('DELETE FROM "sqlite_sequence";', ""))

    return put_back_dump


def stock(replica: Replica) -> int:
    return int(replica.asked("SELECT stock FROM article WHERE id = 'x'")[0][0])


def retry(replica: Replica) -> int:
    return parked.retry(replica.database, [], now=replica.clock.now())


def sent_twice_as_one(a: Replica, b: Replica, answer: Callable[[], object], stands: int) -> None:
    """The person answers, and once more after the database was put back to before that."""
    put_back = backup_of(b)
    answer()
    assert all_equal(a, b)
    assert stock(a) == stock(b) == stands
    put_back()
    b.write("INSERT INTO article VALUES ('y', 1, 'crate', NULL)")  # gets a number that the server knows
    b.sync()
    answer()
    assert all_equal(a, b)
    assert stock(a) == stock(b) == stands


def test_a_retry_that_is_said_again_counts_once(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    b.write("UPDATE article SET stock = stock + 5")
    b.write(REFUSED)
    sent_twice_as_one(a, b, lambda: retry(b), 15)


def test_a_retry_of_a_retry_counts_once(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    b.write("UPDATE article SET stock = stock + 5")
    b.write(REFUSED)

    def answer() -> None:
        retry(b)
        b.write(REFUSED.partition(", op_id")[0] + ", op_id = coalesce(op_id, 'none') WHERE state = 'pending'")
        retry(b)

    sent_twice_as_one(a, b, answer, 15)


def test_a_choice_that_is_made_again_counts_once(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    a.write("UPDATE article SET note = 'of a'")
    b.write("UPDATE article SET note = 'of b', stock = stock + 5")
    a.sync()
    b.sync()
    b.write("UPDATE article SET stock = stock + 2")  # held with it
    b.sync()
    assert len(open_numbers(b)) == 1
    sent_twice_as_one(a, b, lambda: resolve(b, "mine"), 17)
    assert a.rows("article")[0][3] == "of b"


def test_a_choice_for_a_record_that_was_deleted_there_counts_once(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    a.write("DELETE FROM article")
    b.write("UPDATE article SET note = 'of b', stock = stock + 5")
    b.write("UPDATE article SET stock = stock + 2")
    a.sync()
    b.sync()
    sent_twice_as_one(a, b, lambda: resolve(b, "mine"), 17)


def test_what_was_parked_before_it_was_sent_counts_once(pair: tuple[Replica, Replica]) -> None:
    """The backup is from before it was parked: it is parked anew, and is the same op."""
    a, b = pair
    b.write("UPDATE article SET name = 'refused'")
    b.write(REFUSED)
    b.write("UPDATE article SET stock = stock + 5")

    def answer() -> None:
        b.push()
        assert b.states()["parked"] == 2
        retry(b)

    sent_twice_as_one(a, b, answer, 15)


def test_what_is_edited_is_another_op(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    b.write("UPDATE article SET name = 'wrong'")
    b.write(REFUSED)
    put_back = backup_of(b)
    answers = iter(["right", "better"])

    def answer() -> None:
        (row,) = b.parked()
        mending.edit(b.database, row["op_id"], {"name": next(answers)}, now=b.clock.now())

    answer()
    assert all_equal(a, b)
    put_back()
    b.write("INSERT INTO article VALUES ('y', 1, 'crate', NULL)")
    b.sync()
    answer()
    assert all_equal(a, b)
    assert a.rows("article")[0][2] == b.rows("article")[0][2] == "better"


def test_two_answers_without_a_backup_are_two(pair: tuple[Replica, Replica]) -> None:
    """The same edit, refused and sent again twice over, is two edits."""
    a, b = pair
    for _ in range(2):
        b.write("UPDATE article SET stock = stock + 5")
        b.write(REFUSED)
        retry(b)
        b.sync()
    assert all_equal(a, b)
    assert stock(a) == 20


def said(replica: Replica) -> list[Any]:
    return [row["op_id"] for row in replica.outbox()]


def test_what_is_parked_before_it_is_sent_gets_the_id_that_it_would_be_sent_with(pair: tuple[Replica, Replica]) -> None:
    _, b = pair
    b.write("UPDATE article SET name = 'refused'")
    b.write(REFUSED)
    b.write("UPDATE article SET stock = stock + 5")
    b.push()
    (_, before) = said(b)
    b.write(f"UPDATE {OUTBOX} SET state = 'pending', op_id = NULL WHERE op_id = '{before}'")
    b.push()
    assert said(b)[1] == before
