"""A server that is put back to a backup: what it has lost comes back from the replicas, and nothing newer is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from backhaul.database import open_database
from backhaul.server import auth
from backhaul.server.memory import StoreRemote
from backhaul.server.store import ServerDatabase, Store, prepare
from tests.replicas import MovedClock, Replica, make_replica

MINUTE = 60_000
Rows = list[tuple[object, ...]]


@dataclass
class Server:
    """A server on disk, which can be put back. Its replicas ask whatever store is there."""

    path: Path
    clock: MovedClock
    store: Store

    def enrol(self) -> str:
        with self.store.database.writing() as connection:
            return auth.enrol(connection, "default", self.clock.now())

    def back_up(self) -> Path:
        copy = self.path.with_suffix(".backup")
        self.store.database.close()
        for suffix in ("", "-wal", "-shm"):
            if Path(f"{self.path}{suffix}").exists():
                shutil.copy(f"{self.path}{suffix}", f"{copy}{suffix}")
        self._open()
        return copy

    def put_back(self, copy: Path) -> None:
        self.store.database.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            if Path(f"{copy}{suffix}").exists():
                shutil.copy(f"{copy}{suffix}", f"{self.path}{suffix}")
        self._open()

    def _open(self) -> None:
        self.store.database = ServerDatabase(open_database(f"sqlite:///{self.path}"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    clock, path = MovedClock(), tmp_path / "server.sqlite"
    database = ServerDatabase(open_database(f"sqlite:///{path}"))
    prepare(database, clock.now())
    server = Server(path, clock, Store(database))
    yield server
    server.store.database.close()


@pytest.fixture
def make(server: Server, tmp_path: Path) -> Iterator[Callable[[str], Replica]]:
    made: list[Replica] = []

    def make_one(name: str) -> Replica:
        remote = StoreRemote(server.store, server.clock)
        replica = make_replica(tmp_path / f"{name}.sqlite", remote, code=server.enrol())
        replica.clock = server.clock
        made.append(replica)
        return replica

    yield make_one
    for replica in made:
        replica.close()


def settle(server: Server, *replicas: Replica) -> None:
    for _ in range(4):
        for replica in replicas:
            server.clock.moment += 3 * 60 * MINUTE
            replica.sync()


def at(server: Server, replica: Replica, statement: str, *values: object) -> None:
    """A write of the app at the world's time: the triggers know the machine's alone."""
    replica.write(statement, *values)
    replica.write("UPDATE backhaul_outbox SET captured_at = ? WHERE state = 'pending'", server.clock.now())


def done(replica: Replica) -> bool:
    recovering = replica.app.execute("SELECT recovering FROM backhaul_replica").fetchone()
    staged = replica.app.execute("SELECT count(*) FROM backhaul_stage").fetchone()
    return (recovering, staged, replica.outbox()) == (("",), (0,), [])


def test_what_the_server_has_lost_comes_back_and_what_was_written_since_stands(
    server: Server, make: Callable[[str], Replica]
) -> None:
    a, b, c = make("a"), make("b"), make("c")
    rows = ", ".join(f"({key}, 'name {key}')" for key in range(1, 8))
    at(server, a, f"INSERT INTO customer (id, name) VALUES {rows}")
    settle(server, a, b, c)
    saved = server.back_up()
    server.clock.moment += MINUTE
    at(server, a, "UPDATE customer SET name = 'lost, and back' WHERE id = 1")
    at(server, a, "INSERT INTO customer (id, name, phone) VALUES (20, 'lost row', '20')")
    at(server, a, "DELETE FROM customer WHERE id = 3")
    at(server, a, "UPDATE customer SET name = 'lost', phone = 'lost' WHERE id = 4")
    at(server, a, "DELETE FROM customer WHERE id = 5")
    a.sync()
    server.clock.moment += MINUTE
    at(server, a, "INSERT INTO customer (id, name) VALUES (5, 'born again')")
    a.sync()
    b.sync()  # b has seen all of it; c nothing
    at(server, b, "UPDATE customer SET phone = 'waits' WHERE id = 2")
    server.clock.moment += MINUTE
    server.put_back(saved)
    server.clock.moment += MINUTE
    at(server, c, "UPDATE customer SET name = 'written since' WHERE id = 4")
    at(server, c, "INSERT INTO customer (id, name) VALUES (30, 'new since')")
    c.sync()
    settle(server, b, a, c)
    assert a.rows("customer") == b.rows("customer") == c.rows("customer")
    assert a.rows("customer") == [
        (1, "lost, and back", None, None, None),
        (2, "name 2", "waits", None, None),
        (20, "lost row", "20", None, None),
        (30, "new since", None, None, None),
        (4, "written since", "lost", None, None),
        (5, "born again", None, None, None),
        (6, "name 6", None, None, None),
        (7, "name 7", None, None, None),
    ]
    assert all(done(one) for one in (a, b, c))


def test_two_replicas_at_different_positions_bring_back_what_the_further_one_had_seen(
    server: Server, make: Callable[[str], Replica]
) -> None:
    a, b, c = make("a"), make("b"), make("c")
    at(server, a, "INSERT INTO customer (id, name) VALUES (1, 'old')")
    settle(server, a, b, c)
    saved = server.back_up()
    for step, reader in ((1, b), (2, c)):
        server.clock.moment += MINUTE
        at(server, a, "UPDATE customer SET name = ? WHERE id = 1", f"lost {step}")
        at(server, a, "INSERT INTO customer (id, name) VALUES (?, 'row')", 10 + step)
        a.push()
        reader.pull()
    server.put_back(saved)
    for order in ((b, c), (c, b)):
        settle(server, *order)
    assert b.rows("customer") == c.rows("customer")
    assert [row[:2] for row in b.rows("customer")] == [(1, "lost 2"), (11, "row"), (12, "row")]
    settle(server, a)
    assert a.rows("customer") == b.rows("customer")


def test_what_was_acknowledged_and_not_pulled_yet_is_sent_again(server: Server, make: Callable[[str], Replica]) -> None:
    a, b = make("a"), make("b")
    at(server, a, "INSERT INTO customer (id, name) VALUES (1, 'kept')")
    settle(server, a, b)
    saved = server.back_up()
    at(server, a, "INSERT INTO customer (id, name) VALUES (2, 'acknowledged')")
    a.push()
    server.put_back(saved)
    at(server, a, "INSERT INTO customer (id, name) VALUES (3, 'after')")
    settle(server, a, b)
    assert [row[0] for row in b.rows("customer")] == [1, 2, 3]
    assert done(a)


@pytest.mark.parametrize("seed", range(8))
def test_replicas_of_a_server_that_is_put_back_end_up_equal_to_it(
    server: Server, make: Callable[[str], Replica], seed: int
) -> None:
    random = Random(seed)
    replicas = [make(name) for name in "abc"]
    saved = None

    def live(steps: int) -> None:
        for _ in range(steps):
            server.clock.moment += random.randrange(1, 5 * MINUTE)
            one = random.choice(replicas)
            key = random.randint(1, 6) + 100 * replicas.index(one) * random.randint(0, 1)
            deed = random.randrange(6)
            if deed == 0:
                at(server, one, "INSERT INTO customer (id, name) VALUES (?, 'made') ON CONFLICT DO NOTHING", key)
            elif deed == 1:
                at(server, one, "UPDATE customer SET name = ? WHERE id = ?", str(random.random()), key)
            elif deed == 2:
                at(server, one, "UPDATE customer SET phone = ? WHERE id = ?", str(random.random()), key)
            elif deed == 3:
                at(server, one, "DELETE FROM customer WHERE id = ?", key)
            elif deed == 4:
                one.push(batch=random.choice([1, 2, 100]))
            else:
                one.pull(limit=random.choice([1, 3, 100]))

    live(40)
    saved = server.back_up()
    live(30)
    server.put_back(saved)
    live(20)
    settle(server, *replicas)
    settle(server, *replicas)
    parked = {row["key"] for one in replicas for row in one.parked()}
    left = [[row for row in one.rows("customer") if f"[{row[0]}]" not in parked] for one in replicas]
    assert left[0] == left[1] == left[2]
    assert all(row["state"] == "parked" for one in replicas for row in one.outbox())
