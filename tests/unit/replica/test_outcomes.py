"""Answers that come late, stamps that are put back, and messages that are refused whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from backhaul.clock import stamp_milliseconds
from backhaul.errors import Busy, Refused, Unreachable
from backhaul.replica import checkpoint
from backhaul.replica.reconcile import Illegible, compare
from backhaul.server.horizon import MOST_DRIFT_MS
from backhaul.server.memory import MemoryRemote, MemoryServer
from backhaul.wire import Page, Pushed, Result
from tests.replicas import MovedClock, Replica
from tests.unit.replica.conftest import MakeReplica

HOUR = 3_600_000
Around = Callable[[Callable[[], Pushed], Any], Pushed]


class PushedAround(MemoryRemote):
    """Each push goes through a function of the test's, which gets the push itself and its ops."""

    around: Around

    def push(self, ops: Any) -> Pushed:
        return self.around(lambda: MemoryRemote.push(self, ops), ops)


def push_through(replica: Replica, around: Around) -> None:
    assert isinstance(replica.remote, MemoryRemote)
    remote = PushedAround(replica.remote.server, replica.remote.replica)
    remote.around = around
    replica.remote = remote


def loser_and_winner(make: MakeReplica) -> tuple[Replica, Replica]:
    """a has written `older` to the name of customer 1 and not sent it; the server has `newer`, from b."""
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()
    b.sync()
    a.write("UPDATE customer SET name = 'older'")
    a.write("UPDATE backhaul_outbox SET captured_at = captured_at - 60000, seen_hlc = 0")
    a.write("UPDATE backhaul_replica SET last_hlc = 0")
    b.write("UPDATE customer SET name = 'newer'")
    b.sync()
    return a, b


def push_and_pull_meanwhile(replica: Replica) -> None:
    """Another process pulls when the server has the push, and its answer is on the way."""

    def pulled_meanwhile(push: Callable[[], Pushed], _ops: Any) -> Pushed:
        reply = push()
        replica.pull()
        return reply

    push_through(replica, pulled_meanwhile)
    replica.push()


# ------------------------------------------------------------------------------------------------ overtaken


def test_what_won_is_heard_though_the_pull_passed_it_before_the_lost_answer_was_repeated(make: MakeReplica) -> None:
    a, b = loser_and_winner(make)
    a.clock = MovedClock(a.clock.now())
    lose = [True]

    def lossy(push: Callable[[], Pushed], _ops: Any) -> Pushed:
        reply = push()
        if lose and lose.pop():
            raise Unreachable("the answer was lost")
        return reply

    push_through(a, lossy)
    with pytest.raises(Unreachable):
        a.push()
    a.pull()  # brings what won, while the change that lost is still laid over it
    assert a.rows("customer")[0][1] == "older"
    a.clock.moment += HOUR
    assert a.push().acked == 1
    assert compare(a.database, a.remote, context=a.context).moving == "records wait to be fetched once more"
    a.pull()
    assert a.rows("customer") == b.rows("customer")
    assert a.outbox() == []


def test_what_won_is_heard_though_another_process_pulled_between_the_push_and_its_answer(make: MakeReplica) -> None:
    a, b = loser_and_winner(make)
    push_and_pull_meanwhile(a)
    a.pull()
    assert a.rows("customer") == b.rows("customer")
    assert a.outbox() == []


def test_an_edit_made_meanwhile_stays_over_what_is_fetched_once_more(make: MakeReplica) -> None:
    a, b = loser_and_winner(make)
    push_and_pull_meanwhile(a)
    a.write("UPDATE customer SET phone = 'edited'")
    a.pull()
    assert a.rows("customer") == [(1, "newer", "edited", None, None)]
    a.sync()
    b.sync()
    assert a.rows("customer") == b.rows("customer")


def test_what_is_fetched_once_more_is_not_shown_before_what_was_written_with_it(make: MakeReplica) -> None:
    a, b = loser_and_winner(make)

    def pulled_meanwhile(push: Callable[[], Pushed], _ops: Any) -> Pushed:
        reply = push()
        a.pull()
        return reply

    push_through(a, pulled_meanwhile)
    a.push()
    b.write_together("UPDATE customer SET name = 'both'", "INSERT INTO invoice (id, customer_id) VALUES (7, 1)")
    b.sync()
    shown: list[tuple[str, int]] = []

    class Watched(MemoryRemote):
        """What the app sees whenever its replica speaks to the server."""

        def pull(self, *given: Any, **named: Any) -> Page:
            shown.append((a.rows("customer")[0][1], len(a.rows("invoice"))))
            if len(shown) == 1:
                raise Unreachable("the link is gone")
            return super().pull(*given, **named)

    assert isinstance(a.remote, MemoryRemote)
    a.remote = Watched(a.remote.server, a.remote.replica)
    with pytest.raises(Unreachable):
        a.pull()
    a.pull()
    assert set(shown) == {("older", 0)}
    assert (a.rows("customer"), len(a.rows("invoice"))) == (b.rows("customer"), 1)
    assert a.outbox() == []


# ------------------------------------------------------------------------------------------------ clocks


def ahead(make: MakeReplica, by: int) -> tuple[Replica, list[int]]:
    """A replica whose clock was put forward since it last spoke to the server; the pushes it makes are counted."""
    a = make("a")
    a.clock = MovedClock(a.clock.now() + by)
    pushes: list[int] = []

    def counted(push: Callable[[], Pushed], ops: Any) -> Pushed:
        pushes.append(len(ops))
        assert len(pushes) < 10, "it does not stop sending"
        return push()

    push_through(a, counted)
    return a, pushes


def captured_now(a: Replica) -> None:
    a.write("UPDATE backhaul_outbox SET captured_at = ? WHERE state = 'pending'", a.clock.now())


def test_what_is_stamped_too_far_ahead_is_stamped_anew_and_sent_once_more(
    make: MakeReplica, server: MemoryServer
) -> None:
    a, pushes = ahead(make, HOUR)
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada'), (2, 'Bob')")
    captured_now(a)
    assert a.push().acked == 2
    assert pushes == [2, 2]
    assert all(stamp_milliseconds(state.hlc) <= server.clock.now() + 1_000 for state in server.states.values())


def test_an_edit_stamped_anew_still_comes_after_the_replicas_own_earlier_ones(make: MakeReplica) -> None:
    a, _ = ahead(make, MOST_DRIFT_MS - 5_000)  # not quite too far
    b = make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'first')")
    captured_now(a)
    a.sync()
    a.clock.moment += HOUR
    a.write("UPDATE customer SET name = 'second'")
    captured_now(a)
    a.sync()
    b.sync()
    assert a.rows("customer") == b.rows("customer") == [(1, "second", None, None, None)]


def test_a_replica_knows_the_servers_clock_from_its_enrolment(make: MakeReplica, server: MemoryServer) -> None:
    server.clock = MovedClock(server.clock.now() + HOUR)
    a = make("a")
    with a.database.reading() as connection:
        assert HOUR - 60_000 < checkpoint.read(connection).clock_offset_ms <= HOUR


def test_what_the_server_leaves_undecided_is_sent_again_later_and_not_at_once(make: MakeReplica) -> None:
    a = make("a")
    a.clock = MovedClock(a.clock.now())
    decided = [False, True]

    def undecided(push: Callable[[], Pushed], ops: Any) -> Pushed:
        if decided.pop(0):
            return push()
        return Pushed(results=[Result(op=op.op, status="retry") for op in ops], now=a.clock.now())

    push_through(a, undecided)
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    with pytest.raises(Busy) as busy:
        a.push()
    assert busy.value.retry_after_ms
    a.clock.moment += busy.value.retry_after_ms
    assert a.push().acked == 1


# ------------------------------------------------------------------------------------------------ refused whole


def grouped(a: Replica, group: str, *statements: str) -> None:
    with a.app:
        a.app.execute("UPDATE backhaul_replica SET group_id = ?", (group,))
        for statement in statements:
            a.app.execute(statement)
        a.app.execute("UPDATE backhaul_replica SET group_id = NULL")


def holding_at_most(most: int) -> Around:
    def narrow(push: Callable[[], Pushed], ops: Any) -> Pushed:
        if len(ops) > most:
            raise Refused("too much", problem="batch-too-large", status=413)
        return push()

    return narrow


def test_a_group_that_is_too_large_is_found_behind_a_small_one(make: MakeReplica) -> None:
    a = make("a")
    push_through(a, holding_at_most(5))
    a.write("INSERT INTO customer (id, name) VALUES (1, 'alone')")
    grouped(a, "g", "INSERT INTO customer (id, name) VALUES (2, ''), (3, ''), (4, ''), (5, ''), (6, ''), (7, '')")
    a.write("INSERT INTO customer (id, name) VALUES (8, 'alone, too')")
    a.push()
    assert [json.loads(row["key"]) for row in a.parked()] == [[2], [3], [4], [5], [6], [7]]
    assert [row["state"] for row in a.outbox() if json.loads(row["key"]) in ([1], [8])] == ["acked", "acked"]


def test_what_was_sent_beside_a_change_that_no_server_takes_is_parked_with_it_if_it_depends_on_it(
    make: MakeReplica, server: MemoryServer
) -> None:
    a = make("a")

    def picky(push: Callable[[], Pushed], ops: Any) -> Pushed:
        if any(b"poison" in bytes(op.fields) for op in ops if op.fields):
            raise Refused("not this one", problem="malformed", status=400)
        return push()

    push_through(a, picky)
    a.write("INSERT INTO customer (id, name) VALUES (1, 'poison')")
    a.write("UPDATE customer SET phone = '7' WHERE id = 1")
    a.write("INSERT INTO invoice (id, customer_id) VALUES (9, 1)")
    a.write("INSERT INTO line VALUES (9, 1, 'tea')")
    a.write("INSERT INTO customer (id, name) VALUES (2, 'fine')")
    a.push()
    assert [row["reason"] for row in a.parked()] == ["malformed"] + ["depends-on-parked"] * 3
    assert list(server.states) == [("customer", "[2]")]
    assert {row["state"] for row in a.outbox()} == {"parked", "acked"}


def test_a_change_is_not_sent_without_the_refused_one_it_depends_on_because_the_message_was_cut(
    make: MakeReplica, server: MemoryServer
) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()
    push_through(b, holding_at_most(3))
    b.write("INSERT INTO customer (id, name) VALUES (1, 'Bob'), (2, 'Eve'), (3, 'Dan'), (4, 'Kim')")
    b.write("INSERT INTO invoice (id, customer_id) VALUES (9, 1)")
    b.write("INSERT INTO line VALUES (9, 1, 'tea')")
    b.push()
    assert [row["reason"] for row in b.parked()] == ["key-taken"] + ["depends-on-parked"] * 2
    assert sorted(server.states) == [("customer", f"[{number}]") for number in (1, 2, 3, 4)]


def test_a_number_that_is_filled_with_nothing_is_no_fork_to_a_server_that_has_refused_its_op_before(
    make: MakeReplica, server: MemoryServer
) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()
    lose = [True]

    def lossy(push: Callable[[], Pushed], _ops: Any) -> Pushed:
        reply = push()
        if lose and lose.pop():
            raise Unreachable("the answer was lost")
        return reply

    push_through(b, lossy)
    b.clock = MovedClock(b.clock.now())
    b.write("INSERT INTO customer (id, name) VALUES (1, 'Bob'), (2, 'Eve')")
    b.write("INSERT INTO invoice (id, customer_id) VALUES (9, 1)")
    with pytest.raises(Unreachable):
        b.push()
    b.clock.moment += HOUR
    b.push(batch=1)
    assert [row["reason"] for row in b.parked()] == ["key-taken", "depends-on-parked"]
    assert sorted(server.states) == [("customer", "[1]"), ("customer", "[2]")]
    assert b.states() == {"parked": 2, "acked": 2}


def test_text_that_is_no_utf8_does_not_stop_what_comes_in(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()
    b.sync()
    a.write("UPDATE customer SET name = CAST(x'ff41' AS TEXT)")
    a.push()
    b.write("UPDATE customer SET phone = '1'")
    b.sync()
    a.pull()
    assert a.app.execute("SELECT phone FROM customer").fetchall() == [("1",)]
    assert json.loads(a.parked()[0]["fields"]) == {"name": "\N{REPLACEMENT CHARACTER}A"}


def test_rows_with_text_that_is_no_utf8_are_named_and_the_others_compared(make: MakeReplica) -> None:
    a = make("a")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada'), (2, 'Zoë')")
    a.write("INSERT INTO customer (id, name) VALUES (3, CAST(x'ff41' AS TEXT))")
    a.write("INSERT INTO invoice VALUES (1, 1, 5)")
    a.sync()
    a.write("DELETE FROM backhaul_outbox")
    found = compare(a.database, a.remote, context=a.context)
    assert not found.equal
    compared = {one.table: one for one in found.tables}
    assert compared["customer"].not_utf8 == Illegible(rows=1, keys=("[3]",))
    assert compared["customer"].here is not None
    assert compared["customer"].here[0] == 3
    assert compared["invoice"].equal
    a.write("DELETE FROM customer WHERE id = 3")
    a.write("DELETE FROM backhaul_outbox")
    assert compare(a.database, a.remote, context=a.context).equal
