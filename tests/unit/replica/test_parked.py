"""What a person does about parked changes, while apps write and other processes sync."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backhaul.errors import TryLater, Unreachable
from backhaul.replica import parked
from backhaul.replica.reconcile import compare
from backhaul.server.memory import MemoryRemote, MemoryServer
from backhaul.wire import Record
from tests.replicas import Replica
from tests.unit.replica.conftest import MakeReplica

REFUSED = (
    "UPDATE backhaul_outbox SET state = 'parked', reason = 'test', attempts = 1, settled_at = 1,"
    " op_id = 'op' || id WHERE "
)


class Interrupted(MemoryRemote):
    """Something happens between the server's answer about records and its arrival."""

    happens: Callable[[], object]

    def records(self, keys: Any) -> list[Record]:
        found = super().records(keys)
        self.happens()
        return found


def interrupt(replica: Replica, happens: Callable[[], object]) -> None:
    assert isinstance(replica.remote, MemoryRemote)
    remote = Interrupted(replica.remote.server, replica.remote.replica)
    remote.happens = happens
    replica.remote = remote


def pair(make: MakeReplica) -> tuple[Replica, Replica]:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()
    b.sync()
    return a, b


def equal(a: Replica) -> bool:
    return compare(a.database, a.remote, context=a.context).equal


def test_a_pull_between_the_servers_word_and_the_giving_up_is_not_undone(make: MakeReplica) -> None:
    a, b = pair(make)
    b.write("UPDATE customer SET name = 'refused'")
    b.write(REFUSED + "state = 'pending'")
    news = iter(["1"])

    def pulled() -> None:
        for phone in news:
            a.write("UPDATE customer SET phone = ?", phone)
            a.sync()
            b.pull()

    interrupt(b, pulled)
    assert parked.discard(b.database, b.remote, []) == 1
    assert b.rows("customer") == a.rows("customer")
    assert equal(b)


def test_pulls_that_do_not_end_put_the_giving_up_off(make: MakeReplica) -> None:
    a, b = pair(make)
    b.write("UPDATE customer SET name = 'refused'")
    b.write(REFUSED + "state = 'pending'")

    def pulled() -> None:
        a.write("UPDATE customer SET phone = coalesce(phone, '') || '.'")
        a.sync()
        b.pull()

    interrupt(b, pulled)
    with pytest.raises(TryLater):
        parked.discard(b.database, b.remote, [])
    assert len(b.parked()) == 1


def test_nothing_is_given_up_when_the_server_cannot_be_asked(make: MakeReplica) -> None:
    _, b = pair(make)
    b.write("UPDATE customer SET name = 'refused'")
    b.write(REFUSED + "state = 'pending'")

    def unreachable() -> None:
        raise Unreachable

    interrupt(b, unreachable)
    with pytest.raises(Unreachable):
        parked.discard(b.database, b.remote, [])
    assert len(b.parked()) == 1
    assert b.rows("customer")[0][1] == "refused"


def test_what_waits_on_a_record_that_is_given_up_does_not_land_on_somebody_elses(
    make: MakeReplica, server: MemoryServer
) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    b.write("INSERT INTO customer (id, name) VALUES (1, 'Bob')")
    a.sync()
    b.sync()
    b.write("UPDATE customer SET phone = 'of Bob' WHERE id = 1")
    assert parked.discard(b.database, b.remote, []) == 1
    b.sync()
    assert [row["reason"] for row in b.parked()] == ["depends-on-parked"]
    assert server.states["customer", "[1]"].fields["phone"] is None
    assert parked.discard(b.database, b.remote, []) == 1
    assert b.rows("customer") == a.rows("customer")


def test_of_a_record_with_several_changes_only_what_is_given_up_goes(make: MakeReplica) -> None:
    _, b = pair(make)
    b.write("UPDATE customer SET name = 'waits', phone = '1'")
    b.write("UPDATE customer SET name = 'refused', credit = 5")
    b.write(REFUSED + "id = (SELECT max(id) FROM backhaul_outbox)")
    assert parked.discard(b.database, b.remote, []) == 1
    assert b.rows("customer") == [(1, "waits", "1", None, None)]
    b.sync()
    assert equal(b)


def test_a_change_that_is_sent_again_takes_along_what_was_written_after_it(make: MakeReplica) -> None:
    a, b = pair(make)
    b.write("UPDATE customer SET name = 'first'")
    b.write(REFUSED + "state = 'pending'")
    b.write("UPDATE customer SET name = 'second'")
    (refused,) = b.parked()
    assert parked.retry(b.database, [refused["op_id"]], now=b.clock.now()) == 2
    b.sync()
    a.sync()
    assert b.parked() == []
    assert a.rows("customer") == b.rows("customer") == [(1, "second", None, None, None)]


def test_what_a_later_parked_change_needs_can_be_sent_again_by_itself(make: MakeReplica) -> None:
    _, b = pair(make)
    b.write("UPDATE customer SET name = 'first'")
    b.write("INSERT INTO customer (id, name) VALUES (2, 'other')")
    b.write(REFUSED + "state = 'pending'")
    b.write("UPDATE customer SET name = 'third' WHERE id = 1")
    b.push()
    first = b.parked()[0]
    assert parked.retry(b.database, [first["op_id"]], now=b.clock.now()) == 2
    b.sync()
    assert [row["key"] for row in b.parked()] == ["[2]"]


def test_an_update_that_outlives_its_given_up_insert_leaves_no_row_that_the_server_has_not(make: MakeReplica) -> None:
    a, b = pair(make)
    b.write("INSERT INTO line VALUES (1, 1, 'tea')")
    b.write(REFUSED + "state = 'pending'")
    b.write("UPDATE line SET what = 'milk'")
    assert parked.discard(b.database, b.remote, []) == 1
    assert b.rows("line") == []
    assert parked.retry(b.database, [], now=b.clock.now()) == 1  # the update, which was parked with its insert
    b.sync()
    assert equal(b)
    a.write("INSERT INTO line VALUES (1, 1, 'made by a')")
    for one in (a, b, a):
        one.sync()
    assert a.rows("line") == b.rows("line")
    assert len(b.rows("line")) == 1


def test_a_record_comes_in_whole_where_only_a_parked_update_of_it_is_left(make: MakeReplica) -> None:
    a, b = pair(make)
    b.write("INSERT INTO line VALUES (1, 1, 'tea')")
    b.write(REFUSED + "state = 'pending'")
    b.write("UPDATE line SET what = 'milk'")
    assert parked.discard(b.database, b.remote, []) == 1
    a.write("INSERT INTO line VALUES (1, 1, 'made by a')")
    a.sync()
    b.sync()
    assert b.rows("line") == [(1, 1, "milk")]
    assert parked.discard(b.database, b.remote, []) == 1
    assert b.rows("line") == [(1, 1, "made by a")]
