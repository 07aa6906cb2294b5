"""Ten thousand increments from two replicas, through a connection that drops every third reply after the server has
committed: every one of them counts, and counts once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from backhaul.backoff import Backoff
from backhaul.errors import TryLater
from backhaul.remotes.http import HttpRemote
from backhaul.replica.reconcile import compare
from backhaul.replica.strategies import Rules
from tests.faults.proxy import Proxy, every, honest, lost, proxy
from tests.journey.server_process import ServerProcess, serving
from tests.replicas import Replica, make_replica

SCHEMA = "CREATE TABLE stock (item TEXT PRIMARY KEY, number INTEGER, note TEXT);"
ITEMS = [f"item {number}" for number in range(8)]
ROWS = "".join(f"INSERT INTO stock VALUES ('{item}', 0, 'counted');" for item in ITEMS)
RULES = {"stock": Rules(merge={"number": "counter"})}
EACH = 5_000
AT_ONCE = 50
RETRY = Backoff(initial_ms=1, most_ms=5)


class Till:
    """A replica whose app does nothing but add and take away, and keeps an account of its own."""

    def __init__(self, replica: Replica, random: Random) -> None:
        self.replica = replica
        self.account: Counter[str] = Counter()
        self.failed = 0
        self._random = random

    def add(self, number: int) -> None:
        """So many increments in one transaction, of which some travel together and some alone."""
        group = self._random.choice([None, f"group {self._random.random()}"])
        with self.replica.app as app:
            app.execute("UPDATE backhaul_replica SET group_id = ?", (group,))
            for _ in range(number):
                item, by = self._random.choice(ITEMS), self._random.choice([1, 1, 1, 2, -1])
                app.execute("UPDATE stock SET number = number + ? WHERE item = ?", (by, item))
                self.account[item] += by
            app.execute("UPDATE backhaul_replica SET group_id = NULL")

    def sync(self) -> bool:
        """Whether all of it went through, and nothing waits any more."""
        try:
            self.replica.push(retry=RETRY, batch=4 * AT_ONCE, alone=True)
            self.replica.pull()
        except TryLater:
            self.failed += 1
            return False
        return not self.replica.states()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with serving(tmp_path / "server") as server:
        yield server


@pytest.fixture
def between(server: ServerProcess) -> Iterator[Proxy]:
    with proxy(server.url) as between:
        yield between


@pytest.fixture
def tills(tmp_path: Path, server: ServerProcess, between: Proxy) -> Iterator[list[Till]]:
    made = []
    for number, before in enumerate((ROWS, "")):
        path, remote = tmp_path / f"till {number}.sqlite", HttpRemote(between.url)
        replica = make_replica(path, remote, schema=SCHEMA, code=server.enrol(), before=before, rules=RULES)
        replica.sync()
        made.append(Till(replica, Random(number)))
    yield made
    for till in made:
        till.replica.close()
        till.replica.remote.close()


def test_every_increment_counts_once_though_every_third_reply_is_lost(between: Proxy, tills: list[Till]) -> None:
    random = Random(3)
    between.rule = every(3, lost)
    for _ in range(EACH // AT_ONCE):
        for till in tills:
            till.add(AT_ONCE)
            if random.random() < 0.2:
                till.sync()
    while not all(list(map(Till.sync, tills))):
        assert max(till.failed for till in tills) < 1_000
    assert min(till.failed for till in tills) > 5
    between.rule = honest
    counted = {item: sum(till.account[item] for till in tills) for item in ITEMS}
    for till in tills:
        assert till.sync()
        assert {str(item): number for item, number, _ in till.replica.rows("stock")} == counted
        assert compare(till.replica.database, till.replica.remote, context=till.replica.context).equal
