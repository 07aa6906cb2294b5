"""The two journeys, between replicas of one server in memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import event

from backhaul.clock import stamp, stamp_milliseconds
from backhaul.errors import Refused, SignInRequired, TableAltered, Unreachable
from backhaul.replica import enrol, outbox, parked
from backhaul.replica.reconcile import compare, reconcile
from backhaul.server.memory import MemoryRemote, MemoryServer
from tests.replicas import MovedClock, Replica
from tests.unit.replica.conftest import MakeReplica


def test_a_change_travels_from_one_replica_to_the_other(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name, credit, photo) VALUES (1, 'Ada', 0.1, x'00ff')")
    a.sync()
    b.sync()
    assert b.rows("customer") == [(1, "Ada", None, 0.1, b"\x00\xff")]
    a.write("UPDATE customer SET phone = '1' WHERE id = 1")
    b.write("UPDATE customer SET name = 'Ada L.' WHERE id = 1")
    a.sync()
    b.sync()
    a.sync()
    assert a.rows("customer") == b.rows("customer") == [(1, "Ada L.", "1", 0.1, b"\x00\xff")]
    b.write("DELETE FROM customer")
    b.sync()
    a.sync()
    assert a.rows("customer") == []


def test_nothing_is_left_in_the_outbox_once_the_pull_has_passed(make: MakeReplica) -> None:
    a = make()
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.push()
    assert a.states() == {"acked": 1}
    a.pull()
    assert a.states() == {}


def test_what_was_pulled_is_not_pushed_back(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()
    b.pull()
    assert b.outbox() == []


def test_the_backfill_sends_the_rows_that_were_there_before(make: MakeReplica) -> None:
    rows = ", ".join(f"({n}, 'c{n}')" for n in range(1, 5001))
    a = make("a", before=f"INSERT INTO customer (id, name) VALUES {rows};")
    a.write("UPDATE customer SET name = 'edited meanwhile' WHERE id = 4000")
    a.sync()
    b = make("b")
    b.sync()
    assert len(b.rows("customer")) == 5000
    assert a.rows("customer") == b.rows("customer")
    assert (4000, "edited meanwhile", None, None, None) in b.rows("customer")


def test_equal_keys_that_were_on_both_sides_before_are_the_same_record(make: MakeReplica) -> None:
    a = make("a", before="INSERT INTO customer (id, name, phone) VALUES (1, 'Ada', '1');")
    b = make("b", before="INSERT INTO customer (id, name, phone) VALUES (1, 'Ada', '1'), (2, 'Bob', NULL);")
    b.write("UPDATE customer SET phone = '2' WHERE id = 1")
    for _ in range(2):
        a.sync()
        b.sync()
    assert a.rows("customer") == b.rows("customer") == [(1, "Ada", "2", None, None), (2, "Bob", None, None, None)]


def test_two_new_rows_under_one_generated_key_are_never_merged(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    b.write("INSERT INTO customer (id, name) VALUES (1, 'Bob')")
    b.write("INSERT INTO invoice (id, customer_id) VALUES (9, 1)")
    b.write("INSERT INTO line VALUES (9, 1, 'tea')")
    b.write("INSERT INTO customer (id, name) VALUES (2, 'Eve')")
    a.sync()
    b.sync()
    reasons = {(row["table_name"], row["reason"]) for row in b.parked()}
    assert reasons == {("customer", "key-taken"), ("invoice", "depends-on-refused"), ("line", "depends-on-refused")}
    assert a.rows("customer") == [(1, "Ada", None, None, None)]
    a.sync()
    assert a.rows("customer") == [(1, "Ada", None, None, None), (2, "Eve", None, None, None)]
    assert a.rows("invoice") == []
    assert b.rows("customer")[0] == (1, "Bob", None, None, None)  # until a person has decided


def test_later_changes_that_depend_on_a_parked_one_are_parked_with_it(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    b.write("INSERT INTO customer (id, name) VALUES (1, 'Bob')")
    a.sync()
    b.sync()
    b.write("UPDATE customer SET phone = '7' WHERE id = 1")
    b.write("INSERT INTO invoice (id, customer_id) VALUES (9, 1)")
    b.write("INSERT INTO line VALUES (9, 1, 'tea')")
    b.sync()
    assert [row["reason"] for row in b.parked()] == ["key-taken"] + ["depends-on-parked"] * 3
    a.sync()
    assert a.rows("invoice") == []
    assert a.rows("customer") == [(1, "Ada", None, None, None)]


def test_discarding_brings_the_servers_state_back(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    b.write("INSERT INTO customer (id, name) VALUES (1, 'Bob')")
    b.write("INSERT INTO invoice (id, customer_id) VALUES (9, 1)")
    a.sync()
    b.sync()
    assert parked.discard(b.database, b.remote, []) == 2
    assert b.rows("customer") == [(1, "Ada", None, None, None)]
    assert b.rows("invoice") == []
    assert b.outbox() == []


def test_a_parked_change_that_is_retried_is_a_new_op(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    b.write("INSERT INTO customer (id, name) VALUES (1, 'Bob')")
    a.sync()
    b.sync()
    a.write("DELETE FROM customer")
    a.sync()
    assert parked.retry(b.database, [], now=b.clock.now()) == 1
    b.sync()
    a.sync()
    assert b.parked() == []
    assert a.rows("customer") == b.rows("customer") == [(1, "Bob", None, None, None)]


class LossyRemote(MemoryRemote):
    """Applies every push, and loses the answer of the first ones."""

    def __init__(self, server: MemoryServer, lose: int) -> None:
        super().__init__(server)
        self.lose = lose
        self.sent: list[list[bytes]] = []

    def push(self, ops: Any) -> Any:
        import msgspec

        self.sent.append([msgspec.json.encode(op) for op in ops])
        reply = super().push(ops)
        if self.lose:
            self.lose -= 1
            raise Unreachable("the answer was lost")
        return reply


def with_remote(replica: Replica, remote: MemoryRemote) -> None:
    assert isinstance(replica.remote, MemoryRemote)
    remote.replica = replica.remote.replica
    replica.remote = remote


def test_a_lost_answer_is_repeated_byte_for_byte_and_takes_effect_once(make: MakeReplica, server: MemoryServer) -> None:
    a, clock = make("a"), MovedClock()
    remote = LossyRemote(server, lose=2)
    with_remote(a, remote)
    a.clock = clock
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada'), (2, 'Bob')")
    for _ in range(2):
        with pytest.raises(Unreachable):
            a.push()
        a.write("UPDATE customer SET phone = '1' WHERE id = 1")
        (next_at,) = {row["next_at"] for row in a.outbox() if row["state"] == "sent"}
        assert next_at > clock.now()
        assert a.push() == a.push()  # not due yet: nothing goes, not even what is new
        clock.moment = next_at
    assert a.push().acked == 3
    assert remote.sent[0] == remote.sent[1] == remote.sent[2]
    assert len(remote.sent) == 4


def test_one_refused_change_stops_nothing_else(make: MakeReplica, server: MemoryServer) -> None:
    a = make("a")

    class Picky(MemoryRemote):
        def push(self, ops: Any) -> Any:
            if any(b"poison" in bytes(op.fields) for op in ops if op.fields):
                raise Refused("not this one", problem="malformed", status=400)
            return super().push(ops)

    with_remote(a, Picky(server))
    for number in range(20):
        a.write("INSERT INTO customer (id, name) VALUES (?, ?)", number + 1, "poison" if number == 7 else "fine")
    sent = a.push()
    assert sent.acked == 20  # nineteen changes, and the word that number eight was given up
    assert [(json.loads(row["key"]), row["reason"]) for row in a.parked()] == [([8], "malformed")]
    a.write("UPDATE customer SET phone = '1' WHERE id = 20")
    assert a.push().acked == 1
    a.pull()
    b = make("b")
    b.sync()
    assert len(b.rows("customer")) == 19


def test_text_that_is_no_utf8_is_parked_and_stops_nothing_else(make: MakeReplica) -> None:
    a = make("a")
    a.write("INSERT INTO customer (id, name) VALUES (1, CAST(x'ff41' AS TEXT)), (2, 'fine')")
    a.push()
    with a.database.reading() as connection:
        assert outbox.counts(connection).parked == 1
    assert a.states() == {"acked": 2, "parked": 1}


def test_a_lost_sign_in_keeps_everything(make: MakeReplica, server: MemoryServer) -> None:
    a = make("a")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    signed_in = a.remote
    a.remote = MemoryRemote(server)
    with pytest.raises(SignInRequired):
        a.push()
    a.remote = signed_in
    assert a.push().acked == 1


def test_my_unsent_edit_stands_over_what_is_pulled(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()
    b.sync()
    b.write("UPDATE customer SET name = 'from b', phone = '2'")
    b.sync()
    a.write("UPDATE customer SET name = 'from a'")
    a.pull()
    assert a.rows("customer") == [(1, "from a", "2", None, None)]
    a.push()
    a.pull()
    b.pull()
    assert a.rows("customer") == b.rows("customer") == [(1, "from a", "2", None, None)]


def test_an_older_edit_loses_and_its_author_hears_of_it(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()
    b.sync()
    a.write("UPDATE customer SET name = 'older, from a'")
    a.write("UPDATE backhaul_outbox SET captured_at = captured_at - 60000 WHERE state = 'pending'")
    a.write("UPDATE backhaul_replica SET last_hlc = 0")
    a.write("UPDATE backhaul_outbox SET seen_hlc = 0 WHERE state = 'pending'")
    b.write("UPDATE customer SET name = 'newer, from b'")
    b.sync()
    a.pull()
    assert a.rows("customer")[0][1] == "older, from a"
    a.push()
    a.pull()
    assert a.rows("customer") == b.rows("customer") == [(1, "newer, from b", None, None, None)]


def test_a_stamp_follows_what_the_app_had_seen_and_never_runs_back(make: MakeReplica) -> None:
    a = make("a")
    far = stamp(a.clock.now() + 3_600_000)
    a.write("UPDATE backhaul_replica SET seen_hlc = ?", far)
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada'), (2, 'Bob')")
    with a.database.writing() as connection:
        first, second = outbox.claim(connection, now=a.clock.now(), limit=10, lease_ms=1000)
    assert far < first.hlc < second.hlc
    assert stamp_milliseconds(second.hlc) == stamp_milliseconds(far)


def test_a_delete_is_not_undone_by_a_concurrent_edit(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()
    b.sync()
    a.write("DELETE FROM customer")
    b.write("UPDATE customer SET name = 'edited'")
    a.sync()
    b.sync()
    a.sync()
    assert a.rows("customer") == b.rows("customer") == []


def test_what_finds_no_way_through_a_slow_link_goes_in_smaller_and_smaller_pieces(
    make: MakeReplica, server: MemoryServer
) -> None:
    a, clock, sizes = make("a"), MovedClock(), []

    class Slow(MemoryRemote):
        def push(self, ops: Any) -> Any:
            sizes.append(len(ops))
            if len(ops) > 20:
                raise Unreachable("no answer in time")
            return super().push(ops)

    with_remote(a, Slow(server))
    a.clock = clock
    for number in range(1, 101):
        a.write("INSERT INTO customer (id, name) VALUES (?, 'x')", number)
    while True:
        try:
            a.push(batch=100)
            break
        except Unreachable:
            clock.moment += 600_000
    assert sizes[:4] == [100, 100, 50, 25]
    assert max(sizes[sizes.index(12) :]) <= 20 or sizes[-1] <= 20
    assert a.states() == {"acked": 100}


def test_a_wait_that_was_set_while_the_clock_was_a_day_ahead_is_over(make: MakeReplica, server: MemoryServer) -> None:
    a, clock = make("a"), MovedClock()
    a.clock = clock
    with_remote(a, LossyRemote(server, lose=1))
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    clock.moment += 86_400_000
    with pytest.raises(Unreachable):
        a.push()
    clock.moment -= 86_400_000
    assert a.push().acked == 1


def test_thousands_of_parked_changes_do_not_hold_up_the_next_push(make: MakeReplica) -> None:
    a = make("a")
    a.write("UPDATE backhaul_replica SET group_id = 'g'")
    with a.app:
        a.app.executemany("INSERT INTO customer (id, name) VALUES (?, 'x')", [(n,) for n in range(10_000)])
    a.write("UPDATE backhaul_outbox SET state = 'parked', attempts = 1, op_id = 'p' || id")
    a.write("UPDATE backhaul_replica SET group_id = NULL")
    with a.app:
        rows = [(n, n if n < 500 else None) for n in range(1_000)]
        a.app.executemany("INSERT INTO invoice (id, customer_id) VALUES (?, coalesce(?, 99999))", rows)
    assert a.push().acked == 500
    assert len(a.parked()) == 10_500


def test_groups_go_whole_whatever_the_batch(make: MakeReplica) -> None:
    a = make("a")
    a.write("UPDATE backhaul_replica SET group_id = 'g'")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    a.write("UPDATE backhaul_replica SET group_id = NULL")
    with a.database.writing() as connection:
        assert len(outbox.claim(connection, now=a.clock.now(), limit=1, lease_ms=1000)) == 3


def test_a_claim_keeps_others_out_until_its_lease_has_passed(make: MakeReplica) -> None:
    a = make("a")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    now = a.clock.now()

    def claim(at: int) -> list[outbox.Change]:
        with a.database.writing() as connection:
            return outbox.claim(connection, now=at, limit=10, lease_ms=1000)

    (first,) = claim(now)
    assert claim(now + 999) == []
    (again,) = claim(now + 1000)
    assert (again.op_id, again.send_seq, again.hlc, again.fields) == (
        first.op_id,
        first.send_seq,
        first.hlc,
        first.fields,
    )
    with a.database.writing() as connection:  # the first one was taken for dead: what it says now changes nothing
        outbox.release(connection, [first], next_at=now + 99_999, error="zombie")
    assert a.outbox()[0]["next_at"] == 0


def test_the_run_that_holds_the_push_takes_over_what_a_killed_one_left(make: MakeReplica) -> None:
    a = make("a")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    with a.database.writing() as connection:
        outbox.claim(connection, now=a.clock.now(), limit=10, lease_ms=60_000)
    assert a.push().acked == 0
    assert a.push(alone=True).acked == 1


def test_an_altered_table_stops_push_and_pull_until_init_renews_it(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()
    a.write("ALTER TABLE customer ADD COLUMN email TEXT")
    a.write("UPDATE customer SET email = 'ada@example.org'")
    for journey in (a.push, a.pull):
        with pytest.raises(TableAltered, match="customer"):
            journey()
    assert enrol.renew(a.database, a.remote).tables == ["customer"]
    assert enrol.renew(a.database, a.remote).tables == []
    a.sync()
    b.sync()
    assert b.rows("customer") == [(1, "Ada", None, None, None)]
    b.write("ALTER TABLE customer ADD COLUMN email TEXT")
    enrol.renew(b.database, b.remote)
    b.sync()
    assert b.rows("customer") == [(1, "Ada", None, None, None, "ada@example.org")]


def test_reconcile_proves_that_both_sides_are_equal_or_says_which_table_is_not(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name, credit, photo) VALUES (1, 'Ada', 3.1400000000000001, x'00')")
    a.write("INSERT INTO line VALUES (1, 2, 'tea')")
    for one in (a, b):
        assert reconcile(one.database, one.remote, clock=one.clock, context=one.context).equal
    b.write("UPDATE backhaul_replica SET muted = 1")
    b.write("UPDATE customer SET credit = 4")  # behind the capture's back
    b.write("UPDATE backhaul_replica SET muted = 0")
    comparison = compare(b.database, b.remote, context=b.context)
    assert [one.table for one in comparison.tables if not one.equal] == ["customer"]
    b.write("UPDATE customer SET phone = '1'")
    assert "1 changes wait" in str(compare(b.database, b.remote, context=b.context).moving)


@pytest.mark.parametrize("journey", ["push", "pull"])
def test_the_statements_of_a_batch_do_not_grow_with_it(make: MakeReplica, journey: str) -> None:
    def statements(rows: int) -> int:
        a, b = make(f"a{rows}{journey}"), make(f"b{rows}{journey}")
        with a.app:
            values = [(rows * 1000 + n, f"c{n}") for n in range(rows)]
            a.app.executemany("INSERT INTO customer (id, name) VALUES (?, ?)", values)
        counted = a if journey == "push" else b
        if journey == "pull":
            a.sync()
        said: list[str] = []
        event.listen(counted.database.engine, "before_cursor_execute", lambda *args: said.append(args[2]))
        (counted.push if journey == "push" else counted.pull)()
        return len(said)

    assert statements(5) == statements(900)


def test_a_long_push_says_how_far_it_is_and_counts_what_waits_now_and_then(make: MakeReplica) -> None:
    """To count is to look at all that waits: for each batch, that would cost more than the batch before long."""
    a, counts = make("a"), list[str]()
    with a.app:
        a.app.executemany("INSERT INTO customer (id, name) VALUES (?, 'Ada')", [(n,) for n in range(1, 101)])

    def note(*args: Any) -> None:
        if "count(*)" in args[2]:
            counts.append(args[2])

    event.listen(a.database.engine, "before_cursor_execute", note)
    a.push(batch=10)
    assert [(one["done"], one["total"]) for one in a.context.said] == [(n, 100) for n in range(10, 101, 10)]
    assert len(counts) < 4


def test_pulling_from_the_beginning_keeps_what_waits(make: MakeReplica, server: MemoryServer) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()
    b.sync()
    b.write("UPDATE customer SET name = 'waiting'")

    class Forgetful(MemoryRemote):
        def pull(self, cursor: str, limit: int, **said: Any) -> Any:
            if cursor == known:
                raise Refused("too old", problem="cursor-expired", status=410)
            return super().pull(cursor, limit, **said)

    (known,) = b.app.execute("SELECT cursor FROM backhaul_replica").fetchone()
    with_remote(b, Forgetful(server))
    b.pull()
    assert b.rows("customer") == [(1, "waiting", None, None, None)]
    assert b.states() == {"pending": 1}


def test_a_push_that_was_cut_down_several_times_still_hears_what_is_gone(
    make: MakeReplica, server: MemoryServer
) -> None:
    a = make("a")
    for key in range(16):
        a.write("INSERT INTO customer (id, name) VALUES (?, 'Ada')", key)

    class Narrow(MemoryRemote):
        late = True

        def push(self, ops: Any) -> Any:
            if len(ops) > 1:
                raise Refused("too much at once", problem="batch-too-large", status=413)
            if self.late:
                raise Refused("pull first", problem="cursor-expired", status=410)
            return super().push(ops)

        def pull(self, *some: Any, **said: Any) -> Any:
            self.late = False
            return super().pull(*some, **said)

    with_remote(a, Narrow(server))
    a.push()
    a.pull()
    assert a.outbox() == []
