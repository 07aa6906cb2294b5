"""Several workers that drain one outbox of PostgreSQL beside each other, each in a lane of its own: what hangs together
stays in order, nothing is lost, nothing is taken twice."""

from __future__ import annotations

import json
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from backhaul.backoff import Backoff
from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.errors import Busy, TryLater, Unreachable
from backhaul.lanes import lane_of
from backhaul.replica import enrol, lanes, outbox, push, recover
from backhaul.replica.lanes import Lane
from backhaul.replica.push import CALL_EVERY, is_wanted
from backhaul.replica.strategies import Rules
from backhaul.server import auth
from backhaul.server.memory import MemoryServer, StoreRemote
from backhaul.server.store import ServerDatabase, Store, prepare
from backhaul.wire import OutgoingOp, Pushed
from tests.contract.replica.conftest import SHOP, WORDS, MakeReplica
from tests.contract.replica.test_rounds import assert_equal
from tests.replicas import Replica, Undisturbed, make_postgresql_replica
from tests.services import PostgreSQL

FOUR = [Lane(number=number, of=4) for number in range(4)]


class Heard:
    """A remote that remembers what arrived, in its order; every so often the answer does not come back."""

    def __init__(self, remote: Any, *, drop_every: int = 0) -> None:
        self._remote = remote
        self._lock = threading.Lock()
        self._drop_every = drop_every
        self.pushes: list[list[str]] = []
        self.lanes: set[int] = set()
        self.versions: dict[str, int] = {}

    def push(self, ops: list[OutgoingOp]) -> Pushed:
        reply = self._remote.push(ops)
        with self._lock:
            self.pushes.append([op.op for op in ops])
            self.lanes.update(lane_of(op.seq) for op in ops)
            for result in reply.results:
                self.versions.setdefault(result.op, result.version)
            if self._drop_every and len(self.pushes) % self._drop_every == 0:
                raise Unreachable("the answer was lost")
        return reply

    def __getattr__(self, name: str) -> Any:
        return getattr(self._remote, name)


@pytest.fixture
def replica(make_on: MakeReplica) -> Replica:
    return make_on("postgresql")


@pytest.fixture
def join(cluster: PostgreSQL, tmp_path: Path) -> Iterator[Callable[..., Replica]]:
    """Replicas on PostgreSQL, of a server on PostgreSQL that takes several pushes at once."""
    database, clock = ServerDatabase(open_database(cluster.database())), SystemClock()
    prepare(database, clock.now())
    store = Store(database)
    made: list[Replica] = []

    def one(schema: str = SHOP, rules: Any = None) -> Replica:
        with store.database.writing() as connection:
            code = auth.enrol(connection, "shop", clock.now())
        remote, url, said = StoreRemote(store, clock), cluster.database(), schema.format(**WORDS["postgresql"])
        made.append(make_postgresql_replica(url, remote, schema=said, code=code, home=tmp_path, rules=rules))
        return made[-1]

    yield one
    for replica in made:
        replica.close()
    database.close()


def push_in(replica: Replica, lane: Lane, remote: Any = None, **options: Any) -> push.Sent:
    remote = remote or replica.remote
    return push.push(replica.database, remote, clock=replica.clock, context=Undisturbed(), lane=lane, **options)


def drain(replica: Replica, remote: Any, *, batch: int) -> None:
    """Four workers, until nothing waits."""
    failed: list[BaseException] = []

    def work(lane: Lane) -> None:
        try:
            while outbox_waits(replica):
                try:
                    push_in(replica, lane, remote, batch=batch, alone=True)
                except TryLater:
                    with replica.database.writing() as connection:
                        outbox.hasten(connection)
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=work, args=[lane]) for lane in FOUR]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failed == []


def outbox_waits(replica: Replica) -> bool:
    with replica.database.reading() as connection:
        return outbox.waiting(connection) > 0


def write_at_random(replica: Replica, seed: int, turns: int) -> None:
    url = replica.database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    chance = random.Random(seed)
    with closing(psycopg.connect(url)) as app:
        for turn in range(turns):
            for step in range(chance.randint(1, 4)):
                number = seed * 10_000 + turn * 10 + step
                match chance.randrange(6):
                    case 0:
                        app.execute("INSERT INTO customer (id, name) VALUES (%s, 'new')", [number])
                    case 1:
                        app.execute("UPDATE customer SET phone = %s WHERE id = %s", [str(turn), chance.randint(1, 5)])
                    case 2:
                        app.execute(
                            "INSERT INTO invoice (id, customer_id) SELECT %s, max(id) FROM customer WHERE id < %s",
                            [number, number],
                        )
                    case 3:
                        app.execute(
                            "INSERT INTO line (invoice_id, position, what)"
                            " SELECT max(id), %s, 'x' FROM invoice HAVING max(id) IS NOT NULL",
                            [number],
                        )
                    case 4:
                        app.execute("DELETE FROM line WHERE position = (SELECT max(position) FROM line)")
                    case 5:
                        app.execute("INSERT INTO tag VALUES (%s, '')", [str(number)])
            app.rollback() if chance.random() < 0.1 else app.commit()


@pytest.mark.parametrize("seed", range(3))
def test_what_hangs_together_arrives_in_order(seed: int, join: Callable[..., Replica]) -> None:
    replica = join()
    replica.write("INSERT INTO customer (id, name) SELECT n, 'first' FROM generate_series(1, 5) AS n")
    for writer in range(4):
        write_at_random(replica, seed * 10 + writer + 1, turns=40)
    captured = replica.outbox()
    heard = Heard(replica.remote)
    drain(replica, heard, batch=5)
    assert len(heard.lanes) > 1
    sent = {row["id"]: heard.versions[row["op_id"]] for row in replica.outbox()}
    assert sent.keys() == {row["id"] for row in captured}
    assert_in_order(captured, sent)
    replica.pull()
    assert replica.outbox() == []
    other = join()
    other.sync()
    assert_equal([replica, other])


def assert_in_order(captured: list[dict[str, Any]], version: dict[int, int]) -> None:
    """Of one record, of a transaction, and of a record and those that refer to it."""
    groups: dict[str, set[int]] = defaultdict(set)
    of_record: dict[tuple[str, str], int] = {}
    for row in captured:
        at, place = version[row["id"]], (row["table_name"], row["key"])
        groups[row["group_id"]].add(at)
        assert of_record.get(place, 0) <= at, row
        of_record[place] = at
        fields = json.loads(row["fields"] or "{}")
        key = json.loads(row["key"])
        parents = {
            "invoice": [("customer", json.dumps([fields.get("customer_id")]))],
            "line": [("invoice", json.dumps([key[0]]))],
        }
        for parent in parents.get(row["table_name"], []):
            assert of_record.get(parent, 0) <= at, row
    assert all(len(versions) == 1 for versions in groups.values())


def test_increments_are_counted_once_when_answers_are_lost(join: Callable[..., Replica]) -> None:
    schema = "CREATE TABLE counted (id INTEGER PRIMARY KEY, hits BIGINT NOT NULL DEFAULT 0)"
    rules = {"counted": Rules(merge={"hits": "counter"})}
    replica = join(schema, rules)
    replica.write("INSERT INTO counted (id) SELECT n FROM generate_series(1, 40) AS n")
    replica.push()
    for number in range(400):
        replica.write("UPDATE counted SET hits = hits + 1 WHERE id = ?", number % 40 + 1)
    heard = Heard(replica.remote, drop_every=3)
    drain(replica, heard, batch=9)
    assert len(heard.lanes) > 1
    replica.pull()
    other = join(schema, rules)
    other.sync()
    assert {hits for _, hits in other.rows("counted")} == {10}
    assert_equal([replica, other])


class Away:
    """Nobody answers."""

    def __init__(self, remote: Any) -> None:
        self._remote = remote

    def push(self, ops: list[OutgoingOp]) -> Pushed:
        raise Unreachable("nobody answers")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._remote, name)


def leave_on_its_way(replica: Replica, lane: Lane) -> None:
    with pytest.raises(Unreachable):
        push_in(replica, lane, Away(replica.remote))
    with replica.database.writing() as connection:
        outbox.hasten(connection)


def keys(replica: Replica, state: str) -> list[str]:
    return [row["key"] for row in replica.outbox() if row["state"] == state]


def test_a_lane_leaves_alone_what_hangs_on_another_ones(replica: Replica) -> None:
    replica.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    leave_on_its_way(replica, FOUR[1])
    replica.write("UPDATE customer SET phone = '1' WHERE id = 1")  # the same record
    replica.write("INSERT INTO invoice (id, customer_id) VALUES (2, 1)")  # refers to it
    replica.write("INSERT INTO line VALUES (2, 1, 'x')")  # refers to one that was left out
    replica.write_together(
        "INSERT INTO tag VALUES ('a', '')", "INSERT INTO line VALUES (2, 2, 'x')"
    )  # the same, in part
    assert not is_wanted(replica.database, FOUR[2], now=replica.clock.now())
    replica.write("INSERT INTO tag VALUES ('b', '')")
    assert is_wanted(replica.database, FOUR[2], now=replica.clock.now())
    assert push_in(replica, FOUR[2]).acked == 1
    assert keys(replica, "acked") == ['["b"]']
    assert not is_wanted(replica.database, FOUR[2], now=replica.clock.now())
    assert push_in(replica, FOUR[1]).acked == 6
    replica.pull()
    assert replica.outbox() == []


def test_who_deletes_a_record_waits_for_those_that_let_go_of_it(replica: Replica) -> None:
    replica.write("INSERT INTO customer (id, name) VALUES (1, 'Ada'), (2, 'Bob')")
    replica.write("INSERT INTO invoice (id, customer_id) VALUES (1, 1)")
    replica.push()
    replica.write("DELETE FROM invoice WHERE id = 1")
    leave_on_its_way(replica, FOUR[1])
    replica.write("DELETE FROM customer WHERE id = 1")
    assert push_in(replica, FOUR[2]).acked == 0
    replica.write("UPDATE customer SET phone = '2' WHERE id = 2")
    assert push_in(replica, FOUR[2]).acked == 1
    assert push_in(replica, FOUR[1]).acked == 2


def test_what_a_lane_looks_for_may_stand_behind_much_that_is_anothers(replica: Replica) -> None:
    replica.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    leave_on_its_way(replica, FOUR[1])
    for number in range(12):
        replica.write("UPDATE customer SET phone = ? WHERE id = 1", str(number))
    replica.write("INSERT INTO tag VALUES ('a', '')")
    assert push_in(replica, FOUR[2], batch=5).acked == 1


def test_aggregates_go_in_the_first_lane(make_on: MakeReplica) -> None:
    rules = {"invoice": Rules(aggregate="customer")}
    replica = make_on("postgresql", rules=rules)
    replica.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    replica.write("INSERT INTO invoice (id, customer_id) VALUES (2, 1)")
    replica.write("INSERT INTO tag VALUES ('a', '')")
    assert push_in(replica, FOUR[3]).acked == 1
    assert push_in(replica, FOUR[0]).acked == 2


def test_one_lane_counts_as_about_anything_where_its_worker_knows_of_no_other(replica: Replica) -> None:
    """Workers with the old settings, while the new ones start."""
    replica.write("INSERT INTO tag VALUES ('a', '')")
    leave_on_its_way(replica, lanes.ONLY)
    replica.write("INSERT INTO tag VALUES ('b', '')")
    assert push_in(replica, FOUR[1]).acked == 0
    assert push_in(replica, lanes.ONLY).acked == 2


def test_the_first_lane_ends_what_lanes_have_left_that_are_no_more(replica: Replica) -> None:
    for number in (1, 2, 3):
        replica.write("INSERT INTO tag VALUES (?, '')", str(number))
        leave_on_its_way(replica, FOUR[number])
    assert is_wanted(replica.database, lanes.ONLY, now=replica.clock.now())
    replica.write("INSERT INTO tag VALUES ('4', '')")
    assert replica.push(alone=True).acked == 4
    assert not is_wanted(replica.database, lanes.ONLY, now=replica.clock.now())
    replica.pull()
    assert replica.outbox() == []


def test_help_is_called_when_the_first_batch_leaves_more_behind_and_now_and_then_after_it(replica: Replica) -> None:
    """With how many changes acknowledged by then."""
    called: list[int] = []
    lane = Lane(of=2, call=lambda: called.append(len(keys(replica, "acked"))))
    for number in range(2 * CALL_EVERY + 3):
        replica.write("INSERT INTO tag VALUES (?, '')", str(number))
    assert push_in(replica, lane, batch=2).acked == 2 * CALL_EVERY + 3
    assert called == [0, 2 * CALL_EVERY]


def test_help_is_called_whatever_ends_a_batch(replica: Replica) -> None:
    """A transaction that does not fit any more, say."""
    called: list[int] = []
    for number in range(6):
        replica.write_together(f"INSERT INTO tag VALUES ('{number}', '')", f"INSERT INTO tag VALUES ('{number}b', '')")
    push_in(replica, Lane(of=2, call=lambda: called.append(1)), batch=5)
    assert called


def test_a_push_is_wanted_when_it_would_find_something(replica: Replica) -> None:
    replica.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    leave_on_its_way(replica, FOUR[1])
    for number in range(12):
        replica.write("UPDATE customer SET phone = ? WHERE id = 1", str(number))
    assert not is_wanted(replica.database, FOUR[0], now=replica.clock.now())
    replica.write("INSERT INTO tag VALUES ('a', '')")
    assert is_wanted(replica.database, FOUR[0], now=replica.clock.now())
    assert push_in(replica, FOUR[0]).acked == 1


def test_a_transaction_that_is_too_large_is_wanted_so_that_it_is_parked(replica: Replica) -> None:
    replica.write("INSERT INTO tag SELECT n, '' FROM generate_series(1, 20001) AS n")
    assert is_wanted(replica.database, FOUR[0], now=replica.clock.now())
    assert push_in(replica, FOUR[0]).acked == 0
    assert replica.states() == {"parked": 20_001}


def test_the_backfill_waits_while_the_first_lane_may_take_nothing(make_on: MakeReplica) -> None:
    before = "INSERT INTO tag SELECT n, '' FROM generate_series(1, 5000) AS n;"
    replica = make_on("postgresql", before=before)
    replica.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    with pytest.raises(Unreachable):
        push_in(replica, lanes.ONLY, Away(replica.remote), retry=Backoff(initial_ms=60_000, most_ms=60_000, jitter=0))
    assert replica.push().acked == 0
    assert replica.states().get("pending", 0) < 5_000


@pytest.mark.parametrize("lane", [lanes.ONLY, FOUR[2]])
def test_no_push_is_wanted_while_what_its_lane_has_sent_waits_for_its_next_try(replica: Replica, lane: Lane) -> None:
    replica.write("INSERT INTO tag VALUES ('a', '')")
    with pytest.raises(Unreachable):
        push_in(replica, lane, Away(replica.remote), retry=Backoff(initial_ms=60_000, most_ms=60_000, jitter=0))
    replica.write("INSERT INTO tag VALUES ('b', '')")
    now = replica.clock.now()
    assert not is_wanted(replica.database, lane, now=now)
    assert is_wanted(replica.database, lane, now=now + 60_000)


def test_a_table_that_is_renamed_while_a_lane_has_its_record_is_about_anything(make_on: MakeReplica) -> None:
    replica = make_on("postgresql")
    replica.write("INSERT INTO tag VALUES ('a', '')")
    leave_on_its_way(replica, FOUR[1])
    replica.write("ALTER TABLE tag RENAME TO badge")
    enrol.renew(replica.database, replica.remote, rules={"badge": Rules(formerly=["tag"])})
    replica.write("UPDATE badge SET label = 'b' WHERE code = 'a'")
    assert push_in(replica, FOUR[2]).acked == 0
    assert push_in(replica, FOUR[1]).acked == 2


# ------------------------------------------------------------------------------------------------------- recovery


def on_its_way_in_two_lanes(replica: Replica) -> None:
    """The server has taken what two lanes sent, and neither knows."""
    for lane, number in ((FOUR[1], 1), (FOUR[2], 2)):
        replica.write("INSERT INTO tag VALUES (?, '')", str(number))
        with pytest.raises(Unreachable):
            push_in(replica, lane, Heard(replica.remote, drop_every=1))
    with replica.database.writing() as connection:
        outbox.hasten(connection)


def test_who_signs_in_again_sends_what_all_lanes_had_in_one(replica: Replica, server: MemoryServer) -> None:
    on_its_way_in_two_lanes(replica)
    replica.write("INSERT INTO tag VALUES ('3', '')")
    was = position(server)
    [(known,)] = replica.asked("SELECT replica FROM backhaul_replica")
    recover.sign_in(replica.database, replica.remote.succeed(known), was=known)
    replica.sync()
    assert position(server) == was + 1
    assert replica.outbox() == []
    assert replica.asked("SELECT lane, last_send_seq FROM backhaul_lane") == [(0, 3)]


def position(server: MemoryServer) -> int:
    with server.store.database.reading() as connection:
        return int(connection.exec_driver_sql("SELECT position FROM server_scope").scalar_one())


def test_numbers_are_given_anew_only_while_nobody_sends(replica: Replica) -> None:
    on_its_way_in_two_lanes(replica)
    with replica.database.writing() as connection:
        lanes.wait_until_all_rest(connection)
        connection.execute(text("UPDATE backhaul_outbox SET lease_until = 1 WHERE send_seq = (2::bigint << 48) + 1"))
        with pytest.raises(Busy):
            lanes.wait_until_all_rest(connection)


COUNTED = "CREATE TABLE counted (id INTEGER PRIMARY KEY, hits BIGINT NOT NULL DEFAULT 0)"


@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_server_that_was_put_back_gets_what_all_lanes_had_sent_since(
    first: int, cluster: PostgreSQL, tmp_path: Path
) -> None:
    """Once each, and then every lane goes on. first: the lane that hears of it."""
    database, clock = ServerDatabase(open_database(cluster.database())), SystemClock()
    prepare(database, clock.now())
    store = Store(database)
    with store.database.writing() as connection:
        code = auth.enrol(connection, "shop", clock.now())
    rules: Any = {"counted": Rules(merge={"hits": "counter"})}
    remote = StoreRemote(store, clock)
    replica = make_postgresql_replica(cluster.database(), remote, schema=COUNTED, code=code, home=tmp_path, rules=rules)
    with ExitStack() as ends:
        ends.callback(lambda: store.database.close())  # whichever it is then
        ends.callback(replica.close)
        replica.write("INSERT INTO counted (id) VALUES (1), (2)")
        for lane in FOUR[:3]:
            replica.write("UPDATE counted SET hits = hits + 1")
            assert push_in(replica, lane).acked == (4 if lane is FOUR[0] else 2)
        replica.pull()
        saved = copied(cluster, store)
        for lane in (FOUR[2], FOUR[0], FOUR[1]):
            replica.write("UPDATE counted SET hits = hits + 1")
            assert push_in(replica, lane).acked == 2
        replace(store, saved)
        for lane in (FOUR[first], FOUR[1], FOUR[2], FOUR[0]):
            replica.write("UPDATE counted SET hits = hits + 1")
            push_in(replica, lane)
            replica.pull()
        replica.sync()
        replica.sync()
        assert replica.states() == {}
        assert replica.rows("counted") == [(1, 10), (2, 10)]
        assert_equal([replica])


def copied(cluster: PostgreSQL, store: Store) -> str:
    """The server's database as it is now; returns the copy's URL."""
    store.database.engine.dispose()
    name, copy = store.database.engine.url.database, f"{store.database.engine.url.database}_saved"
    with closing(
        psycopg.connect(f"host={cluster.folder} user=backhaul dbname=postgres", autocommit=True)
    ) as connection:
        connection.execute(f"CREATE DATABASE {copy} TEMPLATE {name}")  # type: ignore[arg-type]
    return cluster.url(copy)


def replace(store: Store, url: str) -> None:
    store.database.close()
    store.database = ServerDatabase(open_database(url))
