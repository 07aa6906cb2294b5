"""The first backfill is cut anywhere, by a death; before it goes on, the table moves and the replica is renewed. What
was never sent has its only copy here: no recovery takes it for something that is gone elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backhaul.clock import SystemClock
from backhaul.replica import backfill, checkpoint, enrol, recover, tables
from backhaul.server.memory import MemoryRemote, MemoryServer
from tests.contract.replica.conftest import MakeReplica
from tests.replicas import MovedClock, Replica

pytestmark = pytest.mark.alternating("sqlite", "postgresql")

ROWS = 5
TAGS = (
    "INSERT INTO tag (code, label) VALUES " + ", ".join(f"('t{number}', 'from before')" for number in range(ROWS)) + ";"
)
KEYS = [f"t{number}" for number in range(ROWS)]
NOW = SystemClock().now()


def settle(*replicas: Replica) -> None:
    for _ in range(3):
        for replica in replicas:
            replica.sync()


def identity(replica: Replica) -> str:
    with replica.database.reading() as connection:
        return checkpoint.read(connection).replica


def batches(replica: Replica, count: int) -> None:
    """So many go out, with what the server says to them; then the run dies."""
    for _ in range(count):
        backfill.advance(replica.database, now=NOW, batch=2)
    said = dict(replica.asked("SELECT name, backfill FROM backhaul_table"))
    replica.write("UPDATE backhaul_table SET backfill = 'done'")
    replica.sync()
    for name, state in said.items():
        replica.write("UPDATE backhaul_table SET backfill = ? WHERE name = ?", state, name)


# ------------------------------------------------------------------------------------------------ how a table moves


def stay(replica: Replica) -> None:
    pass


def grow(replica: Replica) -> None:
    replica.write("ALTER TABLE tag ADD COLUMN colour TEXT")
    assert enrol.renew(replica.database, replica.remote).new == ["tag.colour"]


def lose_triggers(replica: Replica) -> None:
    """And the suspicion that comes of it is over, as after a pull."""
    replica.write("ALTER TABLE tag RENAME TO tag_before")
    replica.write("CREATE TABLE tag (code TEXT PRIMARY KEY, label TEXT)")
    replica.write("INSERT INTO tag SELECT code, label FROM tag_before")
    replica.write("DROP TABLE tag_before")
    enrol.renew(replica.database, replica.remote)
    with replica.database.writing() as connection:
        suspect = tables.suspect(connection)
        assert suspect is not None
        tables.cleared(connection, suspect)


def come_late(replica: Replica) -> None:
    """Another table, with rows of its own, is synced from now on."""
    replica.write("CREATE TABLE late (code TEXT PRIMARY KEY, label TEXT)")
    replica.write("INSERT INTO late SELECT code, label FROM tag")
    enrol.renew(replica.database, replica.remote, names=["late"])


MOVES: list[Callable[[Replica], None]] = [stay, grow, lose_triggers, come_late]

# ------------------------------------------------------------------------------------------------ how it is renewed


def sign_in(replica: Replica, server: MemoryServer) -> None:
    was = identity(replica)
    remote = MemoryRemote(server)
    with replica.database.reading() as connection:
        tracked = [one.table for one in tables.all_tracked(connection)]
    registered = remote.register(server.enrol(), tracked, "again", was=was)
    replica.remote = remote
    recover.sign_in(replica.database, registered, was=was)


def be_late(replica: Replica, server: MemoryServer) -> None:
    recover.begin_anew(replica.database, since=replica.asked("SELECT cursor FROM backhaul_replica")[0][0])


@pytest.mark.parametrize("cut", [0, 1, 3])
@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("renew", [sign_in, be_late])
def test_no_row_is_lost_wherever_the_first_backfill_was_cut(
    make: MakeReplica, server: MemoryServer, cut: int, move: Callable[[Replica], None], renew: Callable[..., None]
) -> None:
    a, b = make(before=TAGS), make()
    batches(a, cut)
    move(a)
    renew(a, server)
    a.pull()
    assert [row[0] for row in a.rows("tag")] == KEYS
    if move is come_late:
        b.write("CREATE TABLE late (code TEXT PRIMARY KEY, label TEXT)")
        enrol.renew(b.database, b.remote, names=["late"])
    settle(a, b)
    for table in ("tag", "late") if move is come_late else ("tag",):
        assert [row[0] for row in a.rows(table)] == [row[0] for row in b.rows(table)] == KEYS


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("renew", [sign_in, be_late])
def test_no_row_is_lost_where_all_is_sent_once_more_to_another_server(
    make: MakeReplica, cut: int, renew: Callable[..., None]
) -> None:
    a = make(before=TAGS)
    a.sync()
    grow(a)
    a.sync()
    other = MemoryServer()
    sign_in(a, other)
    with a.database.reading() as connection:
        assert "tag" in backfill.remaining(connection)
    batches(a, cut)
    renew(a, other)
    a.pull()
    assert [row[0] for row in a.rows("tag")] == KEYS
    settle(a)
    assert len(other.states) == ROWS


def test_what_was_sent_and_is_gone_there_goes_here_too(make: MakeReplica, server: MemoryServer) -> None:
    clock = server.clock = MovedClock(NOW)
    a, b = make(before=TAGS), make()
    batches(a, 1)  # the first two
    b.pull()
    b.write("DELETE FROM tag WHERE code = 't1'")
    b.sync()
    clock.moment += 100 * 86_400_000
    b.write("INSERT INTO tag (code) VALUES ('u')")
    b.sync()
    server.store.purge(clock.moment)
    settle(a, b)
    assert [row[0] for row in a.rows("tag")] == [row[0] for row in b.rows("tag")] == ["t0", "t2", "t3", "t4", "u"]
