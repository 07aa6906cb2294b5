"""Sixteen writers at once in an app's PostgreSQL, some of them slow to commit, while the outbox is being sent.

What is dangerous here: a change that got its number in the outbox early and is committed late, behind others that were
sent meanwhile; it must still be sent, and the changes of one record in the order in which they were made.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import msgspec
import psycopg
import pytest
from sqlalchemy import make_url

from backhaul.backoff import Backoff
from backhaul.errors import TryLater
from backhaul.replica.reconcile import compare
from backhaul.server.memory import MemoryRemote, MemoryServer
from backhaul.wire import OutgoingOp, Pushed
from tests.replicas import Replica, make_postgresql_replica
from tests.services import PostgreSQL

WRITERS = 16
RECORDS = 6
SCHEMA = "CREATE TABLE tally (id TEXT PRIMARY KEY, n INTEGER NOT NULL, by_whom TEXT);"
ROWS = "".join(f"INSERT INTO tally VALUES ('record {number}', 0, '');" for number in range(RECORDS))
RETRY = Backoff(initial_ms=1, most_ms=20)


class Listening(MemoryRemote):
    """Notes, for each record, the values in the order in which the server takes them."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self.heard: dict[str, list[int]] = defaultdict(list)
        self.groups: dict[str, set[str]] = defaultdict(set)
        self._turn = threading.Lock()

    def push(self, ops: Sequence[OutgoingOp], *rest: Any, **named: Any) -> Pushed:
        with self._turn:
            reply = super().push(ops, *rest, **named)
            fresh = {result.op for result in reply.results if result.status == "applied"}
            for op in ops:
                if op.op in fresh and op.kind == "update":
                    said = msgspec.json.decode(bytes(op.fields))  # type: ignore[arg-type]
                    (key,) = msgspec.json.decode(bytes(op.key))
                    self.heard[key].append(said["n"])
                    self.groups[str(op.group)].add(f"{key} {said['n']}")
        return reply


@pytest.fixture(scope="module")
def replica(cluster: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """One for all runs, each of which goes on where the one before has ended."""
    server = MemoryServer()
    remote = Listening(server)
    url = cluster.database(lasting=True)
    made = make_postgresql_replica(
        url, remote, schema=SCHEMA, before=ROWS, code=server.enrol(), home=tmp_path_factory.mktemp("app")
    )
    made.sync()
    yield made
    made.close()


class Writers:
    """Each a thread with a connection of its own, which knows nothing of Backhaul."""

    def __init__(self, url: str, seed: int, rounds: int, slowness: float) -> None:
        self._url = make_url(url).set(drivername="postgresql").render_as_string(False)
        self._slowness = slowness
        self.groups: list[set[str]] = []
        self.errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._work, args=(number, Random(seed * 100 + number), rounds))
            for number in range(WRITERS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def working(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _work(self, number: int, random: Random, rounds: int) -> None:
        try:
            with psycopg.connect(self._url) as app:
                for _ in range(rounds):
                    self.groups.append(self._transaction(app, number, random))
        except BaseException as error:
            self.errors.append(error)

    def _transaction(self, app: psycopg.Connection[Any], number: int, random: Random) -> set[str]:
        """One to three records, in the order of their keys, so that no two writers wait for each other for ever."""
        done = set()
        with app.transaction():
            for record in sorted(random.sample(range(RECORDS), random.choice([1, 1, 2, 3]))):
                statement = "UPDATE tally SET n = n + 1, by_whom = %s WHERE id = %s RETURNING n"
                row = app.execute(statement, (f"writer {number}", f"record {record}")).fetchone()
                done.add(f"record {record} {row[0]}")
                if random.random() < 0.3:
                    time.sleep(self._slowness * random.random())
        return done


def _push(replica: Replica) -> None:
    with suppress(TryLater):
        replica.push(retry=RETRY, batch=7)


def misses_nothing(replica: Replica, *, seed: int, rounds: int, slowness: float) -> None:
    remote: Any = replica.remote
    remote.groups.clear()
    writers = Writers(replica.database.engine.url.render_as_string(), seed, rounds, slowness)
    writers.start()
    while writers.working:
        _push(replica)
        time.sleep(0.002)  # the pace of the pushes; the end of the writers ends it
    if writers.errors:
        raise writers.errors[0]
    for _ in range(3):
        _push(replica)
        replica.pull()
    assert replica.states() == {}
    counted = {str(key): n for key, n, _ in replica.rows("tally")}
    assert {key: remote.heard[key] for key in counted} == {key: list(range(1, n + 1)) for key, n in counted.items()}
    assert sorted(map(sorted, remote.groups.values())) == sorted(map(sorted, writers.groups))
    assert compare(replica.database, remote, context=replica.context).equal


@pytest.mark.parametrize("seed", range(10))
def test_sixteen_writers_with_slow_transactions_are_sent_whole_and_in_order(replica: Replica, seed: int) -> None:
    misses_nothing(replica, seed=seed, rounds=4, slowness=0.01)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(100, 110))
def test_sixteen_writers_that_write_on_and_on_are_sent_whole_and_in_order(replica: Replica, seed: int) -> None:
    misses_nothing(replica, seed=seed, rounds=60, slowness=0.3)
