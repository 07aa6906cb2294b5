"""A replica that is not what it was: copied, put back to a backup, signed in again, away for too long."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from backhaul.database import open_database
from backhaul.errors import SignInRequired, TryLater, Unreachable
from backhaul.remotes.base import Remote
from backhaul.replica import enrol, outbox, parked, pull, recover
from backhaul.replica.strategies import Rules
from backhaul.server import auth
from backhaul.server.memory import MemoryRemote, MemoryServer
from backhaul.wire import OutgoingOp, Page, Pushed, Record
from tests import disputes
from tests.replicas import MovedClock, Replica
from tests.unit.replica.conftest import MakeReplica

DAY = 86_400_000
Backup = Callable[[Replica], Path]


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    """A copy of a replica's database as it is now."""

    def backup(replica: Replica) -> Path:
        path = tmp_path / f"backup of {replica.path.name}"
        with sqlite3.connect(path) as target:
            replica.app.backup(target)
        target.close()
        return path

    return backup


def put_back(replica: Replica, backup: Path) -> None:
    replica.close()
    for left in replica.path.parent.glob(f"{replica.path.name}-*"):
        left.unlink()
    shutil.copy(backup, replica.path)
    replica.app = sqlite3.connect(replica.path)
    replica.database = open_database(f"sqlite:///{replica.path}")


def copy_of(replica: Replica, path: Path, server: MemoryServer) -> Replica:
    remote = MemoryRemote(server, replica.remote.replica)
    return Replica(database=open_database(f"sqlite:///{path}"), remote=remote, path=path, app=sqlite3.connect(path))


def under_a_moved_clock(server: MemoryServer, make: MakeReplica, **said: Any) -> tuple[Replica, Replica, MovedClock]:
    """Two replicas, and the clock that the server goes by."""
    clock = MovedClock(server.clock.now())
    server.clock = clock
    a, b = make("a", **said), make("b", **said)
    for remote in (a.remote, b.remote):
        remote._clock = clock  # type: ignore[attr-defined]
    return a, b, clock


def identity(replica: Replica) -> str:
    return str(replica.app.execute("SELECT replica FROM backhaul_replica").fetchone()[0])


def applied(server: MemoryServer) -> int:
    with server.store.database.reading() as connection:
        return int(connection.exec_driver_sql("SELECT count(DISTINCT op_id) FROM server_applied").scalar_one())


def position(server: MemoryServer) -> int:
    with server.store.database.reading() as connection:
        return int(connection.exec_driver_sql("SELECT position FROM server_scope").scalar_one())


def settle(*replicas: Replica) -> None:
    for _ in range(2):
        for replica in replicas:
            replica.sync()


def test_a_database_put_back_to_a_backup_becomes_another_replica_and_loses_nothing(
    server: MemoryServer, make: MakeReplica, backup: Backup
) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()
    a.write("UPDATE customer SET phone = '1' WHERE id = 1")  # waits in the backup, unsent
    saved = backup(a)
    a.sync()
    a.write("INSERT INTO customer (id, name) VALUES (2, 'Bob')")
    a.write("DELETE FROM customer WHERE id = 1")
    a.sync()
    before, was = applied(server), identity(a)

    put_back(a, saved)
    a.write("INSERT INTO customer (id, name) VALUES (3, 'Eve')")  # gets the number that Bob had
    settle(a, b)
    assert a.rows("customer") == b.rows("customer") == [(2, "Bob", None, None, None), (3, "Eve", None, None, None)]
    assert a.outbox() == []
    assert applied(server) == before + 1
    assert identity(a) != was


def test_what_was_sent_after_the_backup_takes_effect_once(
    server: MemoryServer, make: MakeReplica, backup: Backup
) -> None:
    """Whether the backup holds it as pending or as sent: its op id is what it was."""
    a = make("a")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    saved = backup(a)
    a.sync()
    at = position(server)
    put_back(a, saved)
    a.write("INSERT INTO customer (id, name) VALUES (2, 'Bob')")
    settle(a)
    assert position(server) == at + 1
    assert a.outbox() == []


def test_a_database_put_back_gets_its_own_later_rows_without_a_new_write(make: MakeReplica, backup: Backup) -> None:
    a = make("a")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()
    saved = backup(a)
    a.write("INSERT INTO customer (id, name) VALUES (2, 'Bob')")
    a.sync()
    put_back(a, saved)
    settle(a)
    assert [row[0] for row in a.rows("customer")] == [1, 2]


def test_two_copies_of_a_database_go_on_apart(server: MemoryServer, make: MakeReplica, backup: Backup) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada'), (2, 'Bob')")
    a.sync()
    a.write("UPDATE customer SET name = 'both have it' WHERE id = 2")
    copy = copy_of(a, backup(a), server)
    try:
        for each in (a, copy):
            for number in range(3):
                each.write("UPDATE customer SET phone = ? WHERE id = 1", f"{each.path.name} {number}")
        a.write("INSERT INTO customer (id, name) VALUES (10, 'of a')")
        copy.write("INSERT INTO customer (id, name) VALUES (20, 'of the copy')")
        settle(a, copy, b)
        assert a.rows("customer") == copy.rows("customer") == b.rows("customer")
        assert len(a.rows("customer")) == 4
        assert identity(a) != identity(copy)
        assert applied(server) == 2 + 1 + 2 * 4
    finally:
        copy.close()


def test_two_copies_that_number_a_row_alike_keep_both(server: MemoryServer, make: MakeReplica, backup: Backup) -> None:
    a = make("a")
    copy = copy_of(a, backup(a), server)
    try:
        a.write("INSERT INTO customer (id, name) VALUES (1, 'of a')")
        copy.write("INSERT INTO customer (id, name) VALUES (1, 'of the copy')")
        settle(a, copy)
        assert [row["reason"] for row in copy.parked()] == ["key-taken"]
        assert a.rows("customer") == [(1, "of a", None, None, None)]
    finally:
        copy.close()


def test_a_backup_from_before_outcomes_were_forgotten_is_known_as_a_fork(
    server: MemoryServer, make: MakeReplica, backup: Backup
) -> None:
    a = make("a")
    saved = backup(a)
    for number in (1, 2):
        a.write("INSERT INTO customer (id, name) VALUES (?, 'Ada')", number)
        a.sync()
    server.store.purge(server.clock.now() + 31 * DAY)
    put_back(a, saved)
    a.write("INSERT INTO customer (id, name) VALUES (3, 'not lost')")
    settle(a)
    assert [row[0] for row in a.rows("customer")] == [1, 2, 3]
    assert a.outbox() == []


def test_rows_that_are_gone_there_and_older_here_are_brought_up(
    server: MemoryServer, make: MakeReplica, backup: Backup
) -> None:
    clock = MovedClock(server.clock.now())
    server.clock = clock
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada'), (2, 'Bob'), (3, 'Eve')")
    settle(a, b)
    a.write("UPDATE customer SET phone = 'waits' WHERE id = 3")
    saved = backup(a)
    b.write("DELETE FROM customer WHERE id <> 2")
    b.write("UPDATE customer SET name = 'newer' WHERE id = 2")
    settle(b, a)
    clock.moment += 2 * DAY
    settle(a, b)
    server.store.purge(clock.moment)
    put_back(a, saved)
    settle(a, b)
    assert a.rows("customer") == b.rows("customer") == [(2, "newer", None, None, None)]
    assert a.outbox() == []  # the server knew it: it came too late even then


AGGREGATE = """
    CREATE TABLE invoice (id TEXT PRIMARY KEY, total INTEGER);
    CREATE TABLE line (id TEXT PRIMARY KEY, invoice_id TEXT REFERENCES invoice (id), amount INTEGER);
"""


@pytest.mark.parametrize("unseen", [False, True])
def test_a_fork_is_a_conflict_only_with_what_was_written_after_the_backup(
    make: MakeReplica, backup: Backup, unseen: bool
) -> None:
    a, b = (make(name, schema=AGGREGATE, rules={"line": Rules(aggregate="invoice")}) for name in "ab")
    a.write("INSERT INTO invoice VALUES ('i', 0)")
    settle(a, b)
    a.write("INSERT INTO line VALUES ('before', 'i', 1)")
    a.push()  # and not pulled: nothing but the outbox knows its version
    a.write("INSERT INTO line VALUES ('waits in the backup', 'i', 2)")
    saved = backup(a)
    a.push()
    if unseen:
        a.write("UPDATE invoice SET total = 3")
    else:
        a.write("INSERT INTO invoice VALUES ('of no concern', 0)")
    a.push()
    put_back(a, saved)
    a.write("UPDATE invoice SET total = 7 WHERE id = 'i'")
    a.push()
    assert a.states().get("conflict", 0) == (1 if unseen else 0)
    if not unseen:
        settle(a, b)
        assert (a.rows("invoice"), a.outbox()) == (b.rows("invoice"), [])
        assert [row[0] for row in b.rows("line")] == ["before", "waits in the backup"]


@pytest.mark.parametrize("unseen", [False, True])
def test_a_counter_counts_once_though_a_fork_came_in_the_middle_of_its_backfill(
    server: MemoryServer, make: MakeReplica, backup: Backup, unseen: bool
) -> None:
    schema = "CREATE TABLE thing (id TEXT PRIMARY KEY, stock INTEGER); INSERT INTO thing VALUES ('x', 10), ('y', 10);"
    a = make("a", schema=schema, rules={"thing": Rules(merge={"stock": "counter"})})
    backfilled(a, "done")  # the addition goes out before the row
    a.write("UPDATE thing SET stock = stock + 5")
    a.push()
    backfilled(a, "pending")
    saved = backup(a)
    backfilled(a, "done")
    a.write("UPDATE thing SET stock = stock + ?", 2 if unseen else 0)
    a.write("INSERT INTO thing VALUES ('w', 1)")
    a.push()
    put_back(a, saved)
    a.write("INSERT INTO thing VALUES ('z', 1)")
    settle(a)
    counted = 17 if unseen else 15
    assert a.rows("thing") == [("w", 1), ("x", counted), ("y", counted), ("z", 1)]


def backfilled(replica: Replica, state: str) -> None:
    replica.write("UPDATE backhaul_table SET backfill = ?", state)


# ------------------------------------------------------------------------------------------------ signing in again


def sign_in(replica: Replica, server: MemoryServer) -> None:
    was = identity(replica)
    remote = MemoryRemote(server)
    registered = remote.register(server.enrol(), [], "again", was=was)
    replica.remote = remote
    recover.sign_in(replica.database, registered, was=was)


def test_who_signs_in_again_keeps_what_waits_and_doubles_nothing(server: MemoryServer, make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()

    class Cut(MemoryRemote):
        def push(self, ops):  # type: ignore[no-untyped-def]
            super().push(ops)
            raise Unreachable("the answer was lost")

    a.write("INSERT INTO customer (id, name) VALUES (2, 'arrived')")
    a.remote = Cut(server, a.remote.replica)
    with pytest.raises(Unreachable):
        a.push()
    a.write("UPDATE customer SET phone = 'waits' WHERE id = 2")
    before = applied(server)
    a.remote = MemoryRemote(server)
    with pytest.raises(SignInRequired):
        a.pull()
    sign_in(a, server)
    settle(a, b)
    assert a.outbox() == []
    assert b.rows("customer") == [(1, "Ada", None, None, None), (2, "arrived", "waits", None, None)]
    assert applied(server) == before + 1


def test_rows_that_no_trigger_saw_survive_a_recovery(server: MemoryServer, make: MakeReplica) -> None:
    schema = "CREATE TABLE thing (id TEXT PRIMARY KEY, v TEXT);"
    a, b = make("a", schema=schema), make("b", schema=schema)
    a.write("INSERT INTO thing VALUES ('x', 'v')")
    settle(a, b)
    rebuild_thing(a, schema)
    a.write("INSERT INTO thing VALUES ('new', 'written while no trigger was there')")
    enrol.renew(a.database, a.remote)
    sign_in(a, server)
    settle(a, b)
    assert [row[0] for row in a.rows("thing")] == ["new", "x"]
    assert a.rows("thing") == b.rows("thing")


@pytest.mark.parametrize("decision", ["retry", "discard"])
def test_a_row_that_no_trigger_saw_and_that_may_be_gone_elsewhere_is_offered(
    server: MemoryServer, make: MakeReplica, decision: str
) -> None:
    clock = server.clock = MovedClock(server.clock.now())
    schema = "CREATE TABLE thing (id TEXT PRIMARY KEY, v TEXT);"
    a, b = make("a", schema=schema), make("b", schema=schema)
    a.write("INSERT INTO thing VALUES ('gone', 'v'), ('lives', 'v')")
    settle(a, b)
    b.write("DELETE FROM thing WHERE id = 'gone'")
    b.sync()
    clock.moment += 100 * DAY
    b.write("INSERT INTO thing VALUES ('b', 'v')")
    settle(b)
    server.store.purge(clock.moment)
    rebuild_thing(a, schema)
    a.write("INSERT INTO thing VALUES ('new', 'no trigger saw it')")
    enrol.renew(a.database, a.remote)
    settle(a, b)
    assert [row[0] for row in b.rows("thing")] == ["b", "lives"]
    assert [(row["key"], row["kind"], row["reason"]) for row in a.parked()] == [
        ('["gone"]', "backfill", "record-gone"),
        ('["new"]', "backfill", "record-gone"),
    ]
    assert [row[0] for row in a.rows("thing")] == ["b", "gone", "lives", "new"]
    a.write("UPDATE thing SET v = 'and edited' WHERE id = 'new'")
    settle(a, b)
    gone, new = (row["op_id"] for row in a.parked() if row["kind"] == "backfill")
    parked.discard(a.database, a.remote, [gone])
    if decision == "retry":
        parked.retry(a.database, [new], now=clock.now())
    else:
        parked.discard(a.database, a.remote, [])
    settle(a, b)
    assert (a.parked(), a.outbox()) == ([], [])
    expected = [("b", "v"), ("lives", "v"), *([("new", "and edited")] if decision == "retry" else [])]
    assert a.rows("thing") == b.rows("thing") == expected


def test_a_row_that_no_trigger_saw_is_sent_where_nothing_is_forgotten(server: MemoryServer, make: MakeReplica) -> None:
    """However the replica is renewed: what the server has forgotten, it had heard of."""
    clock = server.clock = MovedClock(server.clock.now())
    schema = "CREATE TABLE thing (id TEXT PRIMARY KEY, v TEXT);"
    a, b = make("a", schema=schema), make("b", schema=schema)
    a.write("INSERT INTO thing VALUES ('gone', 'v')")
    settle(a, b)
    b.write("DELETE FROM thing WHERE id = 'gone'")
    settle(b, a)
    clock.moment += 2 * DAY
    settle(a, b)
    server.store.purge(clock.moment)
    rebuild_thing(a, schema)
    a.write("INSERT INTO thing VALUES ('new', 'no trigger saw it')")
    enrol.renew(a.database, a.remote)
    sign_in(a, server)
    settle(a, b)
    assert a.parked() == []
    assert a.rows("thing") == b.rows("thing") == [("new", "no trigger saw it")]


def rebuild_thing(replica: Replica, schema: str) -> None:
    replica.write("ALTER TABLE thing RENAME TO old_thing")
    replica.write(schema)
    replica.write("INSERT INTO thing SELECT * FROM old_thing")
    replica.write("DROP TABLE old_thing")


def test_a_server_that_does_not_know_the_replica_is_sent_everything(server: MemoryServer, make: MakeReplica) -> None:
    a = make("a")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()
    a.write("UPDATE customer SET phone = 'waits' WHERE id = 1")
    fresh = MemoryServer()
    remote = MemoryRemote(fresh)
    with a.database.reading() as connection:
        from backhaul.replica import tables

        tracked = [one.table for one in tables.all_tracked(connection)]
    was = identity(a)
    registered = remote.register(fresh.enrol(), tracked, "again", was=was)
    a.remote = remote
    recover.sign_in(a.database, registered, was=was)
    settle(a)
    assert a.outbox() == []
    assert a.rows("customer") == [(1, "Ada", "waits", None, None)]
    (state,) = fresh.states.values()
    assert state.fields == {"name": "Ada", "phone": "waits", "credit": None, "photo": None}


def test_a_token_that_is_of_another_identity_than_the_database_is_put_right(
    server: MemoryServer, make: MakeReplica
) -> None:
    """As after a death between the storing of the two, and as when only one of them is put back."""
    a = make("a")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    a.sync()
    a.write("UPDATE customer SET phone = 'waits' WHERE id = 1")
    a.remote.succeed(identity(a))
    assert a.remote.signed_in_as != identity(a)
    a.sync()
    assert a.remote.signed_in_as == identity(a)
    assert a.outbox() == []


# ------------------------------------------------------------------------------------------------ away for too long


def test_a_device_that_comes_too_late_hears_what_is_gone_and_offers_what_waits(
    server: MemoryServer, make: MakeReplica
) -> None:
    a, b, clock = under_a_moved_clock(server, make)
    a.write("INSERT INTO customer (id, name) VALUES (1, 'gone'), (2, 'lives'), (3, 'gone, and edited late')")
    settle(a, b)
    for key in (1, 3):
        a.write("DELETE FROM customer WHERE id = ?", key)
    a.sync()
    clock.moment += DAY
    a.write("INSERT INTO customer (id, name) VALUES (4, 'new')")
    a.sync()
    clock.moment += 100 * DAY
    settle(a)
    server.store.purge(clock.moment)

    b.write("UPDATE customer SET phone = 'late' WHERE id = 3")
    b.write("UPDATE customer SET phone = 'fine' WHERE id = 2")
    b.write("INSERT INTO customer (id, name) VALUES (9, 'made while away')")
    b.push()
    settle(b, a)
    assert a.rows("customer") == [
        (2, "lives", "fine", None, None),
        (4, "new", None, None, None),
        (9, "made while away", None, None, None),
    ]
    assert [row["reason"] for row in b.parked()] == ["record-gone"]
    assert [row[0] for row in b.rows("customer")] == [2, 3, 4, 9]
    assert b.app.execute("SELECT recovering FROM backhaul_replica").fetchone() == ("",)
    assert b.app.execute("SELECT count(*) FROM backhaul_stage").fetchone() == (0,)


def test_who_waits_for_a_table_is_told_of_what_is_deleted_on_a_late_device(
    server: MemoryServer, make: MakeReplica
) -> None:
    a, b, clock = under_a_moved_clock(server, make)
    a.write("INSERT INTO customer (id, name) VALUES (1, 'lives')")
    a.write("INSERT INTO invoice (id, customer_id) VALUES (7, 1)")
    settle(a, b)
    a.write("DELETE FROM invoice")
    a.sync()
    clock.moment += DAY
    a.write("INSERT INTO customer (id, name) VALUES (4, 'new')")
    a.sync()
    clock.moment += 100 * DAY
    settle(a)
    server.store.purge(clock.moment)
    told: list[frozenset[str]] = []
    b.pull(arriving=lambda _, tables: told.append(tables))
    assert b.rows("invoice") == []
    assert frozenset({"invoice"}) in told


def test_an_aggregate_that_a_conflict_is_about_is_not_half_deleted_on_a_late_device(
    server: MemoryServer, make: MakeReplica
) -> None:
    a, b, clock = under_a_moved_clock(server, make, schema=disputes.SCHEMA, rules=disputes.RULES)
    disputes.populate(a, b)
    disputes.edit_line(b, "l1", 9)
    disputes.edit_line(a, "l1", 8)
    settle(a, b)
    assert len(disputes.open_numbers(b)) == 1
    a.write_together("DELETE FROM line", "DELETE FROM invoice")
    a.sync()
    clock.moment += DAY
    a.write("INSERT INTO note VALUES ('new', NULL, NULL)")
    a.sync()
    clock.moment += 100 * DAY
    settle(a)
    server.store.purge(clock.moment)
    b.pull()
    assert disputes.invoice_of(b) == (13, 13)
    disputes.resolve(b, "theirs")
    assert disputes.all_equal(a, b)
    assert b.rows("line") == b.rows("invoice") == []


def test_what_was_withheld_of_a_record_that_is_gone_by_now_is_not_laid_in_on_a_late_device(
    server: MemoryServer, make: MakeReplica
) -> None:
    a, b, clock = under_a_moved_clock(server, make, schema=disputes.SCHEMA, rules=disputes.RULES)
    disputes.populate(a, b)
    b.write("UPDATE invoice SET remark = 'of b'")
    disputes.add_line(a, "l3", 5)
    a.sync()
    b.pull()  # the line is withheld
    a.write_together("DELETE FROM line", "DELETE FROM invoice")
    a.sync()
    clock.moment += DAY
    a.write("INSERT INTO note VALUES ('new', NULL, NULL)")
    a.sync()
    clock.moment += 100 * DAY
    settle(a)
    server.store.purge(clock.moment)
    b.sync()
    parked.discard(b.database, b.remote, [])
    settle(b, a)
    assert b.rows("line") == b.rows("invoice") == []
    assert disputes.all_equal(a, b)


def test_what_was_done_to_a_conflict_on_a_late_device_is_not_given_up_without_it(
    server: MemoryServer, make: MakeReplica
) -> None:
    a, b, clock = under_a_moved_clock(server, make, schema=disputes.SCHEMA, rules=disputes.RULES)
    a.write("INSERT INTO note VALUES ('n', 'first', 'red')")
    settle(a, b)
    number = disputes.contested(a, b)
    a.write("INSERT INTO note VALUES ('m', 'first', 'red')")
    settle(a, b)
    b.write("DELETE FROM note WHERE id = 'n'")
    b.write("UPDATE note SET colour = 'given up' WHERE id = 'm'")
    clock.moment += DAY
    a.write("DELETE FROM note WHERE id = 'm'")
    a.sync()
    clock.moment += 100 * DAY
    settle(a)
    server.store.purge(clock.moment)
    b.pull(on_reset="discard")
    assert b.rows("note") == []
    disputes.resolve(b, "mine", number)
    assert disputes.all_equal(a, b)
    assert a.rows("note") == []


def test_a_device_that_is_away_again_in_the_middle_of_a_recovery_begins_anew_once_more(
    server: MemoryServer, make: MakeReplica
) -> None:
    a, b, clock = under_a_moved_clock(server, make)

    def forget(key: int) -> None:
        a.write("DELETE FROM customer WHERE id = ?", key)
        a.sync()
        clock.moment += DAY
        a.write("INSERT INTO customer (id, name) VALUES (?, 'new')", key + 10)
        a.sync()
        clock.moment += 100 * DAY
        settle(a)
        server.store.purge(clock.moment)

    class Cut(MemoryRemote):
        """It falls silent after `pages` more pages."""

        pages = 1
        asked = 0

        def pull(self, cursor: str, limit: int, **said: Any) -> Page:
            self.asked += 1
            assert self.asked < 20, "it does not stop asking"
            page = super().pull(cursor, limit, **said)
            if not self.pages:
                raise Unreachable("the line is dead")
            self.pages -= 1
            return page

    a.write("INSERT INTO customer (id, name) VALUES (1, 'gone'), (2, 'gone later'), (3, 'lives')")
    settle(a, b)
    forget(1)
    assert isinstance(b.remote, MemoryRemote)
    b.remote = Cut(server, b.remote.replica)
    b.remote._clock = clock
    with pytest.raises(TryLater):
        b.pull(limit=1)
    assert b.app.execute("SELECT recovering FROM backhaul_replica").fetchone() == ("late",)
    forget(2)
    b.write("INSERT INTO customer (id, name) VALUES (9, 'made while away')")
    b.remote.pages = 10
    settle(b, a)
    assert {row[0] for row in b.rows("customer")} == {3, 9, 11, 12}
    assert a.rows("customer") == b.rows("customer")
    assert b.app.execute("SELECT recovering FROM backhaul_replica").fetchone() == ("",)


def test_what_waits_on_a_late_device_is_given_up_where_that_was_said(server: MemoryServer, make: MakeReplica) -> None:
    a, b, clock = under_a_moved_clock(server, make)
    a.write("INSERT INTO customer (id, name) VALUES (1, 'gone'), (2, 'lives')")
    settle(a, b)
    a.write("DELETE FROM customer WHERE id = 1")
    a.sync()
    clock.moment += DAY
    a.write("INSERT INTO customer (id, name) VALUES (4, 'new')")
    a.sync()
    clock.moment += 100 * DAY
    settle(a)
    server.store.purge(clock.moment)
    b.write("UPDATE customer SET phone = 'given up' WHERE id <= 2")
    b.write("INSERT INTO customer (id, name) VALUES (9, 'given up')")
    b.pull(on_reset="discard")
    settle(b, a)
    assert b.outbox() == []
    assert a.rows("customer") == b.rows("customer") == [(2, "lives", None, None, None), (4, "new", None, None, None)]


def test_a_revoked_replica_may_sign_in_again(server: MemoryServer, make: MakeReplica) -> None:
    a = make("a")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    with server.store.database.writing() as connection:
        auth.revoke(connection, identity(a), server.clock.now())
    sign_in(a, server)
    settle(a)
    assert a.outbox() == []


def test_a_pull_ends_when_another_process_has_signed_the_replica_in_anew(
    server: MemoryServer, make: MakeReplica
) -> None:
    a, b = make("a"), make("b")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    a.sync()
    asked: list[str] = []

    class Overtaken(MemoryRemote):
        """Another process signs in while the first page is on its way."""

        def pull(self, cursor: str, limit: int, **said: Any) -> Page:
            asked.append(cursor)
            assert len(asked) < 10, "it does not stop asking"
            if len(asked) == 1:
                recover.sign_in(b.database, b.remote.succeed(was := identity(b)), was=was)
            return super().pull(cursor, limit, **said)

    assert isinstance(b.remote, MemoryRemote)
    held = Overtaken(server, b.remote.replica)
    with pytest.raises(TryLater, match="signed this replica in"):
        pull.pull(b.database, held, clock=b.clock, context=b.context, limit=1, most_held=1)
    assert b.rows("customer") == []
    b.pull(limit=1)
    assert b.rows("customer") == a.rows("customer")


COUNTED = "CREATE TABLE counted (id INTEGER PRIMARY KEY, hits BIGINT NOT NULL DEFAULT 0);"


@pytest.mark.parametrize(
    ("altered", "rules"),
    [
        ("ALTER TABLE counted RENAME TO tally", {"tally": Rules(merge={"hits": "counter"}, formerly=["counted"])}),
        (
            "ALTER TABLE counted RENAME COLUMN hits TO n",
            {"counted": Rules(merge={"n": "counter"}, renamed={"hits": "n"})},
        ),
    ],
    ids=["table", "column"],
)
def test_a_change_that_a_backup_holds_under_older_names_is_the_same_change(
    make: MakeReplica, backup: Backup, altered: str, rules: dict[str, Rules]
) -> None:
    a = make("a", schema=COUNTED, rules={"counted": Rules(merge={"hits": "counter"})})
    a.write("INSERT INTO counted (id) VALUES (1)")
    a.sync()
    a.write("UPDATE counted SET hits = hits + 1")
    saved = backup(a)
    a.push()
    put_back(a, saved)
    a.write(altered)
    enrol.renew(a.database, a.remote, rules=rules)
    settle(a, a)
    assert a.rows("tally" if "tally" in rules else "counted") == [(1, 1)]
    assert a.outbox() == []


class Meanwhile:
    """A remote that does something else before it gives records."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self.deed: Callable[[], None] | None = None
        self.deaf = False

    def push(self, ops: Sequence[OutgoingOp]) -> Pushed:
        reply = self._remote.push(ops)
        if self.deaf:
            raise Unreachable("the answer was lost")
        return reply

    def records(self, keys: Sequence[tuple[str, list[Any]]]) -> list[Record]:
        found = self._remote.records(keys)
        deed, self.deed = self.deed, None
        if deed is not None:
            deed()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._remote, name)


def test_what_is_fetched_once_more_is_laid_in_under_the_names_of_then(make: MakeReplica) -> None:
    a, b = make("a"), make("b")
    remote = Meanwhile(a.remote)
    a.remote = remote  # type: ignore[assignment]
    a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    settle(a, b)
    a.write("UPDATE customer SET phone = 'a' WHERE id = 1")
    remote.deaf = True
    with pytest.raises(Unreachable):
        a.push()
    remote.deaf = False
    b.write("UPDATE customer SET phone = 'b' WHERE id = 1")
    b.sync()
    a.pull()  # what b says is withheld
    with a.database.writing() as connection:
        outbox.hasten(connection)
    a.push()

    def rename() -> None:
        a.write("ALTER TABLE customer RENAME TO client")
        enrol.renew(a.database, a.remote, rules={"client": Rules(formerly=["customer"])})

    remote.deed = rename
    settle(a, b)
    assert remote.deed is None
    assert a.rows("client") == b.rows("customer")
    assert a.rows("client")[0][2] == "b"
