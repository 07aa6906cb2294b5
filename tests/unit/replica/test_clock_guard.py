"""A machine's clock that is years off, or is set while changes wait: nothing waits for years, nothing wins wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backhaul.clock import stamp_from_text, stamp_milliseconds
from backhaul.errors import Busy, Unreachable
from backhaul.replica import clock_guard, outbox
from backhaul.server.memory import MemoryRemote, MemoryServer
from tests.replicas import MovedClock, Replica, make_replica

MINUTE = 60_000
YEAR = 365 * 86_400_000
NOW = 1_800_000_000_000
OFF = {"1970": -NOW + 5, "2038": 2**31 * 1000 - NOW, "ten years ahead": 10 * YEAR, "ten years back": -10 * YEAR}


class Watched(MemoryRemote):
    """stamps: of what was sent, in the order of sending. fails: what the next push raises instead."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self.stamps: list[int] = []
        self.fails: list[Exception] = []

    def push(self, ops):  # type: ignore[no-untyped-def]
        if self.fails:
            raise self.fails.pop()
        self.stamps += [stamp_from_text(op.hlc) for op in ops]
        return super().push(ops)


class World:
    """True time, a server that has it, and two replicas, of which `a` has a clock that may be off."""

    def __init__(self, folder: Path) -> None:
        self.true = MovedClock(NOW)
        self.server = MemoryServer(self.true)
        self.off = 0
        self.a, self.b = (self._replica(folder, name) for name in "ab")
        self.a.clock = self

    def now(self) -> int:
        return self.true.now() + self.off

    def _replica(self, folder: Path, name: str) -> Replica:
        replica = make_replica(folder / f"{name}.sqlite", Watched(self.server), code=self.server.enrol())
        replica.clock = self.true
        replica.write("UPDATE backhaul_replica SET clock_offset_ms = 0")  # the triggers' clock is the machine's
        return replica

    def write(self, replica: Replica, statement: str) -> None:
        """At the replica's time."""
        self.true.moment += MINUTE
        before = replica.app.execute("SELECT coalesce(max(id), 0) FROM backhaul_outbox").fetchone()[0]
        replica.write(statement)
        replica.write("UPDATE backhaul_outbox SET captured_at = ? WHERE id > ?", replica.clock.now(), before)

    def settle(self) -> None:
        for _ in range(3):
            for one in (self.a, self.b):
                self.true.moment += MINUTE
                one.sync()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.a.close()
    world.b.close()
    world.server.close()


def name_of(replica: Replica) -> str:
    return str(replica.app.execute("SELECT name FROM customer WHERE id = 1").fetchone()[0])


@pytest.fixture(params=OFF)
def off(request: pytest.FixtureRequest) -> int:
    return OFF[request.param]


def check(world: World) -> None:
    assert world.a.outbox() == world.b.outbox() == []
    assert world.a.rows("customer") == world.b.rows("customer")
    stamps = world.a.remote.stamps
    assert stamps == sorted(set(stamps))  # one after the other, whatever the clock did
    assert all(abs(stamp_milliseconds(one) - world.true.now()) < 3 * 60 * MINUTE for one in stamps)


def test_what_is_written_under_a_wrong_clock_stands_where_it_belongs(world: World, off: int) -> None:
    world.write(world.a, "INSERT INTO customer (id, name) VALUES (1, 'first')")
    world.settle()
    world.off = off
    world.a.pull()  # the offset is known from here
    world.write(world.a, "UPDATE customer SET name = 'under a wrong clock' WHERE id = 1")
    world.write(world.b, "UPDATE customer SET name = 'later' WHERE id = 1")
    world.settle()
    assert name_of(world.a) == "later"
    world.write(world.a, "UPDATE customer SET name = 'later still' WHERE id = 1")
    world.settle()
    assert name_of(world.b) == "later still"
    check(world)


def test_a_clock_that_is_set_right_while_changes_wait_takes_nothing_from_them(world: World, off: int) -> None:
    world.write(world.b, "INSERT INTO customer (id, name) VALUES (1, 'first')")
    world.settle()
    world.off = off
    world.a.pull()
    world.write(world.b, "UPDATE customer SET name = 'earlier' WHERE id = 1")
    world.write(world.a, "UPDATE customer SET name = 'waits' WHERE id = 1")
    world.off = 0
    world.b.push()
    world.a.pull()  # the offset of now is known, the change has the time of then
    world.settle()
    assert name_of(world.a) == name_of(world.b) == "waits"
    check(world)


@pytest.mark.parametrize(
    ("off", "then"),
    [*((one, 0) for one in OFF.values()), (-10 * MINUTE, -20 * MINUTE)],
    ids=[*OFF, "minutes back twice"],
)
def test_a_change_whose_time_is_put_right_is_the_op_that_it_was(world: World, off: int, then: int) -> None:
    """A backup in which it waits with its old time may be put back, and is sent again."""
    world.write(world.b, "INSERT INTO customer (id, name) VALUES (1, 'first')")
    world.settle()
    world.off = off
    world.a.pull()
    world.write(world.a, "UPDATE customer SET name = 'waits' WHERE id = 1")
    world.off = then
    with world.a.database.reading() as connection:
        (number, captured), *_ = connection.exec_driver_sql("SELECT id, captured_at FROM backhaul_outbox").all()
        as_it_was = outbox.op_ids(connection, [number])
    world.a.pull()
    with world.a.database.reading() as connection:
        found = connection.exec_driver_sql("SELECT captured_at FROM backhaul_outbox").scalar_one()
        assert found != captured
        assert outbox.op_ids(connection, [number]) == as_it_was
    world.settle()
    check(world)


def test_a_wait_and_a_lease_of_a_wrong_clock_hold_nothing_up(world: World, off: int) -> None:
    world.off = off
    world.write(world.a, "INSERT INTO customer (id, name) VALUES (1, 'first')")
    world.a.remote.fails = [Busy("later", retry_after_ms=MINUTE)]
    with pytest.raises(Busy):
        world.a.push()
    world.off = 0
    world.true.moment += 3 * MINUTE
    assert world.a.push().acked == 1
    world.off = off
    world.write(world.a, "UPDATE customer SET name = 'second' WHERE id = 1")
    world.a.remote.fails = [Unreachable("gone")]
    with pytest.raises(Unreachable):
        world.a.push()
    world.a.write("UPDATE backhaul_outbox SET lease_until = ? WHERE state = 'sent'", world.a.clock.now() + 2 * MINUTE)
    world.off = 0
    world.true.moment += 10 * MINUTE
    assert world.a.push().acked == 1


def test_a_server_whose_clock_was_ahead_stops_nobody(world: World) -> None:
    """What it took then has stamps of then; what comes later is stamped after it, and taken."""
    world.write(world.a, "INSERT INTO customer (id, name) VALUES (1, 'first')")
    world.settle()
    right = world.true.moment
    world.server.clock.moment = right + 10 * YEAR
    world.a.pull()
    world.write(world.a, "UPDATE customer SET name = 'of the future' WHERE id = 1")
    world.settle()
    world.server.clock.moment = right + 60 * MINUTE
    for number in range(3):
        for one in (world.a, world.b):
            world.write(one, f"UPDATE customer SET name = '{one.path.stem} {number}' WHERE id = 1")
            world.settle()
            assert name_of(world.a) == name_of(world.b) == f"{one.path.stem} {number}"
    assert world.a.outbox() == world.b.outbox() == []


@pytest.mark.parametrize(
    ("asked_at", "answered_at", "known", "told", "kept"),
    [
        (NOW, NOW + 100, 0, NOW + 5_050, 5_000),
        (NOW, NOW + 10_000, 3_000, NOW + 9_000, 3_000),  # good to five seconds: it says nothing new
        (NOW + 100, NOW, 7, NOW + 5_000, 7),  # our clock was set back meanwhile
        (NOW, NOW + YEAR, 7, NOW + 5_000, 7),  # and forward
    ],
)
def test_an_offset_is_as_good_as_its_round_trip(
    world: World, asked_at: int, answered_at: int, known: int, told: int, kept: int
) -> None:
    world.a.write("UPDATE backhaul_replica SET clock_offset_ms = ?", known)
    with world.a.database.writing() as connection:
        clock_guard.measure(connection, server_now=told, asked_at=asked_at, answered_at=answered_at)
    assert world.a.app.execute("SELECT clock_offset_ms FROM backhaul_replica").fetchone() == (kept,)


def test_an_exchange_that_failed_measures_nothing(world: World) -> None:
    world.write(world.a, "INSERT INTO customer (id, name) VALUES (1, 'first')")
    world.off = YEAR
    world.a.remote.fails = [Unreachable("gone")]
    with pytest.raises(Unreachable):
        world.a.push()
    assert world.a.app.execute("SELECT clock_offset_ms FROM backhaul_replica").fetchone() == (0,)
