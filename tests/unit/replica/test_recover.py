"""A replica that is not what it was: copied, put back to a backup, signed in again, away for too long."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from backhaul.database import open_database
from backhaul.errors import SignInRequired, Unreachable
from backhaul.replica import enrol, recover
from backhaul.server import auth
from backhaul.server.memory import MemoryRemote, MemoryServer
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
    a.write("ALTER TABLE thing RENAME TO old_thing")
    a.write(schema)
    a.write("INSERT INTO thing SELECT * FROM old_thing")
    a.write("DROP TABLE old_thing")
    a.write("INSERT INTO thing VALUES ('new', 'written while no trigger was there')")
    enrol.renew(a.database, a.remote)
    sign_in(a, server)
    settle(a, b)
    assert [row[0] for row in a.rows("thing")] == ["new", "x"]
    assert a.rows("thing") == b.rows("thing")


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
    clock = MovedClock(server.clock.now())
    server.clock = clock
    a, b = (make(name) for name in "ab")
    for remote in (a.remote, b.remote):
        remote._clock = clock  # type: ignore[attr-defined]
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


def test_what_waits_on_a_late_device_is_given_up_where_that_was_said(server: MemoryServer, make: MakeReplica) -> None:
    clock = MovedClock(server.clock.now())
    server.clock = clock
    a, b = (make(name) for name in "ab")
    for remote in (a.remote, b.remote):
        remote._clock = clock  # type: ignore[attr-defined]
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
