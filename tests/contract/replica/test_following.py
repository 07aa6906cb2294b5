"""A schema that one side knows and the other does not yet: both go on, and nothing waits for a person."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from backhaul.clock import SystemClock
from backhaul.errors import Refused
from backhaul.replica import enrol
from backhaul.replica.reconcile import compare
from backhaul.replica.strategies import Rules
from backhaul.server.memory import MemoryRemote, MemoryServer
from tests.contract.replica.conftest import MakeReplica
from tests.replicas import MovedClock, Replica

pytestmark = pytest.mark.alternating("sqlite", "postgresql")

ARTICLE = "CREATE TABLE article (id INTEGER PRIMARY KEY, stock INTEGER, tags TEXT, notes TEXT);"
FIRST = "INSERT INTO article VALUES (1, 10, '[\"red\"]', 'a box')"


def say(replica: Replica, **merge: str) -> enrol.Renewed:
    return enrol.renew(replica.database, replica.remote, rules={"article": Rules(merge=merge)})


def assert_equal(*replicas: Replica) -> None:
    for _ in range(3):
        for replica in replicas:
            replica.sync()
    for replica in replicas:
        assert replica.states() == {}
        compared = compare(replica.database, replica.remote, context=replica.context)
        assert compared.equal, compared


@pytest.fixture
def pair(make: MakeReplica) -> tuple[Replica, Replica]:
    a, b = make(schema=ARTICLE), make(schema=ARTICLE)
    a.write(FIRST)
    a.sync()
    b.sync()
    return a, b


# ------------------------------------------------------------------------------------------------ a strategy comes late


def test_a_column_that_was_declared_without_a_word_becomes_a_counter(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    b.write("UPDATE article SET stock = 12")  # waits, as a value
    say(a, stock="counter")
    a.write("UPDATE article SET stock = stock + 5")
    a.sync()
    assert a.rows("article")[0][1] == 15
    b.push()  # a last write of what the counter begins with
    b.pull()  # is told to follow, and does
    assert b.rows("article")[0][1] == 17
    b.write("UPDATE article SET stock = stock + 1")
    a.write("UPDATE article SET stock = stock + 1")
    assert_equal(a, b)
    assert a.rows("article")[0][1] == b.rows("article")[0][1] == 19


def test_who_follows_late_adds_nothing_twice(pair: tuple[Replica, Replica]) -> None:
    """He must not see what others have added before he knows that it is a counter: writing that back would add it."""
    a, b = pair
    say(a, stock="counter")
    a.write("UPDATE article SET stock = stock + 5")
    a.sync()
    b.write("UPDATE article SET stock = stock + 1")  # of the 10 that he sees
    b.pull()
    b.write("UPDATE article SET stock = stock + 1")
    assert_equal(a, b)
    assert a.rows("article")[0][1] == b.rows("article")[0][1] == 17


def test_what_was_sent_before_goes_again_and_counts_once(pair: tuple[Replica, Replica], server: MemoryServer) -> None:
    a, b = pair

    class Silent(MemoryRemote):
        def push(self, ops: Any) -> Any:
            super().push(ops)
            raise Refused("no answer", problem="none", status=500)

    honest = b.remote
    assert isinstance(honest, MemoryRemote)
    b.remote = Silent(server, honest.replica)
    b.write("UPDATE article SET stock = 20")
    with pytest.raises(Refused):
        b.push()
    b.remote = honest
    say(a, stock="counter")
    a.write("UPDATE article SET stock = stock + 5")
    assert_equal(a, b)
    assert a.rows("article")[0][1] == b.rows("article")[0][1] == 25


def test_sets_and_texts_begin_with_what_is_there(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    say(a, tags="set", notes="text")
    b.write("UPDATE article SET tags = '[\"blue\"]', notes = 'a blue box'")  # whole, of what nobody has edited
    b.push()
    assert_equal(a, b)
    assert a.rows("article")[0][2:] == ('["blue"]', "a blue box")
    a.write("UPDATE article SET tags = '[\"blue\",\"green\"]', notes = 'a very blue box'")
    b.write("UPDATE article SET tags = '[\"red\"]', notes = 'a blue box!'")
    assert_equal(a, b)
    assert a.rows("article")[0][2:] == b.rows("article")[0][2:] == ('["green","red"]', "a very blue box!")


def test_a_whole_value_that_meets_edits_loses_nothing_of_either(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    say(a, tags="set", notes="text")
    a.write("UPDATE article SET tags = '[\"red\",\"green\"]', notes = 'a green box'")
    a.sync()
    b.write("UPDATE article SET tags = '[\"red\",\"blue\"]', notes = 'boxes'")
    assert_equal(a, b)
    assert a.rows("article") == b.rows("article")
    assert a.rows("article")[0][2] == '["blue","green","red"]'
    assert all(part in a.rows("article")[0][3] for part in ("a green box", "boxes"))


def test_values_that_cannot_be_counted_are_named_and_nothing_is_changed(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    with pytest.raises(Refused) as caught:
        say(a, notes="set")
    assert caught.value.problem == "schema-conflict"
    assert "article.notes cannot become a set here, for the value of [1]" in str(caught.value)
    say(a, stock="counter")
    with pytest.raises(Refused) as caught:
        say(b, stock="max")  # another word than the agreed one
    assert caught.value.problem == "schema-conflict"
    b.write("UPDATE article SET stock = stock + 1")
    assert_equal(a, b)


def test_who_comes_with_a_strategy_turns_the_column_too(make: MakeReplica) -> None:
    a = make(schema=ARTICLE)
    a.write(FIRST)
    a.sync()
    b = make(schema=ARTICLE, rules={"article": Rules(merge={"stock": "counter"})})
    b.pull()
    for replica in (a, b):
        replica.write("UPDATE article SET stock = stock + 1")
    assert_equal(a, b)
    assert a.rows("article")[0][1] == 12


def test_a_successor_is_behind_as_it_was_before(pair: tuple[Replica, Replica], server: MemoryServer) -> None:
    a, b = pair
    say(a, stock="counter")
    assert isinstance(b.remote, MemoryRemote)
    assert b.remote.replica is not None
    b.remote.succeed(b.remote.replica.id)
    with pytest.raises(Refused) as caught:
        b.remote.pull("", 10)
    assert caught.value.problem == "schema-behind"


# ------------------------------------------------------------------------------------------------ the server knows less


def forget(server: MemoryServer, statement: str) -> None:
    """As if it was put back to a backup from before."""
    with server.store.database.writing() as connection:
        connection.execute(text(statement))


def test_a_server_that_has_forgotten_a_table_is_told_again_and_nothing_is_parked(
    make: MakeReplica, server: MemoryServer
) -> None:
    a, b = make(), make()
    a.write("INSERT INTO tag VALUES ('x', 'one')")
    a.sync()
    b.sync()
    forget(server, "DELETE FROM server_table WHERE name = 'tag'")
    a.write("UPDATE tag SET label = 'two'")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.write("UPDATE tag SET label = 'three'")
    assert (a.push().parked, a.parked()) == (0, [])
    assert_equal(a, b)
    assert b.rows("tag") == [("x", "three")]


def test_a_change_that_goes_again_is_as_old_as_it_was(make: MakeReplica, server: MemoryServer) -> None:
    a, b = make(), make()
    a.write("INSERT INTO tag VALUES ('x', 'one')")
    a.sync()
    b.sync()
    a.write("UPDATE tag SET label = 'older'")
    b.clock = MovedClock(SystemClock().now() + 5_000)
    b.write("UPDATE tag SET label = 'newer'")
    b.write("UPDATE backhaul_outbox SET captured_at = captured_at + 5000")
    b.push()
    forget(server, "DELETE FROM server_table WHERE name = 'tag'")
    a.push()
    assert_equal(a, b)
    assert a.rows("tag") == [("x", "newer")]


def test_what_no_replica_tracks_is_parked_and_asked_for_once(make: MakeReplica, server: MemoryServer) -> None:
    a = make()
    a.write("UPDATE backhaul_table SET definition = replace(definition, 'label', 'labels') WHERE name = 'tag'")
    forget(server, "DELETE FROM server_table WHERE name = 'tag'")
    a.write("INSERT INTO tag VALUES ('x', 'one')")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    sent = a.push()
    assert (sent.acked, sent.parked) == (1, 1)
    assert [row["reason"] for row in a.parked()] == ["column-unknown"]


def test_an_addition_to_what_the_server_takes_for_a_last_write_again_counts_once(
    pair: tuple[Replica, Replica], server: MemoryServer
) -> None:
    a, b = pair
    say(a, stock="counter")
    say(b)
    forget(server, """UPDATE server_table SET definition = replace(definition, '"stock":"counter"', '')""")
    a.write("UPDATE article SET stock = stock + 5")
    assert a.push().parked == 0
    b.write("UPDATE article SET stock = stock + 1")
    assert_equal(a, b)
    assert a.rows("article")[0][1] == 16
