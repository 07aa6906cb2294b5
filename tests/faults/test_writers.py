"""Sixteen writers at once into a server on PostgreSQL, some of them slow to commit: whoever follows the feed meanwhile
misses none of it.

What is dangerous here is a transaction that got its place in the feed early and commits late: a reader that has gone
past that place would never hear of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from backhaul.remotes.http import HttpRemote
from backhaul.server import outcomes, scopes
from tests.contract.remote.replicas import CUSTOMER, Copy, Replica, digest_there
from tests.services import PostgreSQL, SyncServer, sync_server

WRITERS = 16
PAGES = (1, 3, 1_000)  # the sizes of the pages of those who follow the feed
SHARED = 5  # records that everyone writes


@dataclass(frozen=True, kw_only=True)
class Slowness:
    """How long some transactions of the server are held open, and how often; drawn anew for each."""

    seconds: float
    likely: float


def _drag(patch: pytest.MonkeyPatch, slow: Slowness, random: Random) -> None:
    """Hold transactions open before they take their place in the feed, between that and their end, or both."""
    for module, name in ((scopes, "lock"), (outcomes, "advance"), (scopes, "advance")):
        original = getattr(module, name)

        def dragging(*given: object, original=original, **named: object) -> object:
            answer = original(*given, **named)
            if random.random() < slow.likely:
                time.sleep(slow.seconds * random.random())
            return answer

        patch.setattr(module, name, dragging)


@pytest.fixture(scope="module")
def servers(cluster: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[SyncServer]]:
    """Two servers on one database, so that nothing but the database keeps them apart."""
    url = cluster.database(lasting=True)
    with ExitStack() as stack:
        folders = [tmp_path_factory.mktemp("server") for _ in range(2)]
        yield [stack.enter_context(sync_server(folder, database_url=url)) for folder in folders]


class Crowd:
    """Writers and followers of one scope, each in a thread, spread over the servers."""

    def __init__(self, servers: list[SyncServer], scope: str, random: Random) -> None:
        self._random = random
        self._remotes: list[HttpRemote] = []
        self._errors: list[BaseException] = []
        self._written = threading.Event()
        joined = [self._join(servers[number % len(servers)], scope) for number in range(WRITERS + len(PAGES))]
        self.writers, self.followers = joined[:WRITERS], joined[WRITERS:]

    def _join(self, server: SyncServer, scope: str) -> Replica:
        remote = HttpRemote(server.url)
        self._remotes.append(remote)
        return Replica(remote, server.enrol(scope), "one of many", [CUSTOMER])

    def run(self, rounds: int) -> list[Copy]:
        """What each follower has in the end. Raises what any of the threads has raised."""
        self.writers[0].push(
            *(self.writers[0].op("insert", "customer", [key], name="shared") for key in range(1, SHARED + 1))
        )
        copies = [Copy("customer") for _ in self.followers]
        following = [
            threading.Thread(target=self._guarded, args=(self._follow, follower, copy, size))
            for follower, copy, size in zip(self.followers, copies, PAGES, strict=True)
        ]
        writing = [
            threading.Thread(
                target=self._guarded, args=(self._write, number, writer, Random(self._random.random()), rounds)
            )
            for number, writer in enumerate(self.writers, start=1)
        ]
        for thread in (*following, *writing):
            thread.start()
        for thread in writing:
            thread.join()
        self._written.set()
        for thread in following:
            thread.join()
        if self._errors:
            raise self._errors[0]
        return copies

    def close(self) -> None:
        for remote in self._remotes:
            remote.close()

    def _guarded(self, work, *given) -> None:
        try:
            work(*given)
        except BaseException as error:
            self._errors.append(error)

    def _write(self, number: int, writer: Replica, random: Random, rounds: int) -> None:
        for turn in range(rounds):
            own = 100 * number + turn
            group = f"{number} {turn}" if random.random() < 0.5 else None
            writer.push(
                writer.op("insert", "customer", [own], group=group, name=f"{number}:{turn}"),
                writer.op("update", "customer", [random.randint(1, SHARED)], group=group, phone=f"{number}:{turn}"),
                writer.op("update", "customer", [own], phone="called"),
            )

    def _follow(self, follower: Replica, copy: Copy, size: int) -> None:
        written = False
        while not written:
            written = self._written.is_set()  # once more after the last commit
            copy.take(follower.pull(size))


def _misses_nothing(servers: list[SyncServer], scope: str, slow: Slowness, rounds: int) -> None:
    random = Random(scope)
    crowd = Crowd(servers, scope, random)
    try:
        with pytest.MonkeyPatch.context() as patch:
            _drag(patch, slow, random)
            copies = crowd.run(rounds)
        keys = [[key] for key in range(1, SHARED + 1)]
        keys += [[100 * number + turn] for number in range(1, WRITERS + 1) for turn in range(rounds)]
        for copy in copies:
            assert [key for key in keys if key not in copy] == []
            assert copy.digest() == digest_there(crowd.writers[0].remote, "customer")
    finally:
        crowd.close()


@pytest.mark.parametrize("run", range(4))
def test_sixteen_writers_with_slow_transactions_are_missed_by_no_reader(servers: list[SyncServer], run: int) -> None:
    _misses_nothing(servers, f"run {run}", Slowness(seconds=0.02, likely=0.15), rounds=3)


@pytest.mark.chaos
@pytest.mark.parametrize("run", range(10))
def test_sixteen_writers_that_write_on_and_on_are_missed_by_no_reader(
    servers: list[SyncServer], tmp_path: Path, run: int
) -> None:
    _misses_nothing(servers, f"long run {run}", Slowness(seconds=0.2, likely=0.2), rounds=25)
