"""A replica that becomes its own successor has no conflicts with what it wrote before: on both databases."""

from __future__ import annotations

import pytest

from backhaul.replica import checkpoint, conflicts, outbox, recover
from backhaul.replica.strategies import Rules
from backhaul.server.memory import MemoryRemote, MemoryServer
from tests.contract.replica.conftest import MakeReplica
from tests.replicas import Replica

pytestmark = pytest.mark.alternating("sqlite", "postgresql")

SCHEMA = """
    CREATE TABLE invoice (id TEXT PRIMARY KEY, total INTEGER);
    CREATE TABLE line (id TEXT PRIMARY KEY, invoice_id TEXT REFERENCES invoice (id), amount INTEGER);
    CREATE TABLE note (id TEXT PRIMARY KEY, body TEXT);
"""
RULES = {"line": Rules(aggregate="invoice"), "note": Rules(merge={"body": "manual"})}


def succeed(replica: Replica) -> None:
    """As a fork that is found does it."""
    with replica.database.reading() as connection:
        was, knows = checkpoint.read(connection).replica, outbox.written(connection)
    recover.sign_in(replica.database, replica.remote.succeed(was, knows), was=was)


def sign_in(replica: Replica, server: MemoryServer) -> None:
    """As a person does it."""
    with replica.database.reading() as connection:
        was, knows = checkpoint.read(connection).replica, outbox.written(connection)
    remote = MemoryRemote(server)
    registered = remote.register(server.enrol(), [], "again", was=was, knows=knows)
    replica.remote = remote
    recover.sign_in(replica.database, registered, was=was)


def open_conflicts(replica: Replica) -> int:
    with replica.database.reading() as connection:
        return conflicts.count(connection)


@pytest.fixture
def shop(make: MakeReplica) -> tuple[Replica, Replica]:
    a, b = make(schema=SCHEMA, rules=RULES), make(schema=SCHEMA, rules=RULES)
    a.write("INSERT INTO invoice VALUES ('i', 0)")
    a.write("INSERT INTO note VALUES ('n', 'first')")
    for each in (a, b, a):
        each.sync()
    return a, b


def write_twice(replica: Replica, number: int) -> None:
    replica.write("INSERT INTO line VALUES (?, 'i', ?)", f"l{number}", number)
    replica.write("UPDATE note SET body = ? WHERE id = 'n'", f"the {number}th")


@pytest.mark.parametrize("way", ["successor", "sign in"])
@pytest.mark.parametrize("pulled", [False, True])
def test_nobody_is_asked_about_a_conflict_with_himself(
    shop: tuple[Replica, Replica], server: MemoryServer, way: str, pulled: bool
) -> None:
    """pulled: after the last edit was captured, whose base is from before that; and there was news of others."""
    a, b = shop
    write_twice(a, 1)
    a.push()
    write_twice(a, 2)
    if pulled:
        b.write("INSERT INTO invoice VALUES ('of no concern', 0)")
        b.sync()
        a.pull()
    (succeed if way == "successor" else lambda one: sign_in(one, server))(a)
    write_twice(a, 3)
    for each in (a, b, a, b):
        each.sync()
    assert (open_conflicts(a), open_conflicts(b), a.parked(), a.states()) == (0, 0, [], {})
    assert b.rows("line") == a.rows("line") == [(f"l{number}", "i", number) for number in (1, 2, 3)]
    assert b.rows("note") == [("n", "the 3th")]


def test_what_another_wrote_unseen_is_a_conflict_all_the_same(shop: tuple[Replica, Replica]) -> None:
    a, b = shop
    write_twice(a, 1)
    a.push()
    b.pull()
    write_twice(b, 2)
    b.push()
    write_twice(a, 3)
    succeed(a)
    a.push()
    assert open_conflicts(a) == 2
