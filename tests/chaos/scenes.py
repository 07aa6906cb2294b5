"""Two replicas and a server, each on disk, brought to where one journey of replica b has everything to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backhaul.server.memory import StoreRemote
from backhaul.wire import Pushed
from tests.chaos.journeys import CLOCK, run
from tests.convergence.servers import store_server
from tests.replicas import Replica, make_replica

TABLES = ("customer", "invoice", "line")
DAY = 86_400_000
OUTBOX = ("kind", "key", "fields", "state", "reason")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """parked: the ops that a person has looked at, and gives up."""

    folder: Path
    a: Replica
    b: Replica
    parked: list[str] = field(default_factory=list)

    @property
    def job(self) -> dict[str, Any]:
        remote = self.b.remote
        assert isinstance(remote, StoreRemote)
        assert remote.replica is not None
        return {
            "database": f"sqlite:///{self.b.path}",
            "server": f"sqlite:///{self.folder / 'server.sqlite'}",
            "replica": remote.replica.id,
            "parked": self.parked,
        }

    def finish(self, journey: str) -> None:
        """The journey again, by a fresh process, and then whatever there is to sync."""
        run(journey, self.job)
        for replica in (self.b, self.a, self.b):
            replica.sync()

    def outcome(self) -> dict[str, Any]:
        """Everything that may not depend on whether a process died."""
        return {
            "a": {table: self.a.rows(table) for table in TABLES},
            "b": {table: self.b.rows(table) for table in TABLES},
            "outbox": [tuple(row[name] for name in OUTBOX) for row in self.b.outbox()],
            "muted": self.b.app.execute("SELECT muted, group_id FROM backhaul_replica").fetchall(),
            "applied": self._server(
                "SELECT status, count(DISTINCT op_id) FROM server_applied GROUP BY status ORDER BY status"
            ),
            "position": self._server("SELECT position FROM server_scope"),
        }

    def _server(self, statement: str) -> list[Any]:
        connection = sqlite3.connect(self.folder / "server.sqlite")
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()


@contextmanager
def scene(folder: Path, journey: str) -> Iterator[Scene]:
    folder.mkdir()
    with store_server(folder, CLOCK) as server:
        before = BEFORE if journey == "backfill" else ""
        a = make_replica(folder / "a.sqlite", server.connect(), code=server.enrol())
        b = make_replica(folder / "b.sqlite", server.connect(), code=server.enrol(), before=before)
        b.app.text_factory = lambda raw: raw.decode(errors="replace")
        made = Scene(folder=folder, a=a, b=b)
        try:
            a.write("INSERT INTO customer (id, name) VALUES (1, 'Ada'), (2, 'Bob'), (3, 'Eve')")
            a.sync()
            if journey != "backfill":
                b.sync()
            SCENES[journey](made)
            yield made
        finally:
            a.close()
            b.close()


BEFORE = """
    INSERT INTO customer (id, name) VALUES (50, 'fifty'), (51, 'fifty-one'), (52, 'fifty-two');
    INSERT INTO invoice (id, customer_id, total) VALUES (60, 50, 1.5), (61, 51, 2.5);
"""


def _writes(scene: Scene) -> None:
    """Five changes alone, and a group of three."""
    b = scene.b
    b.write("UPDATE customer SET phone = '1' WHERE id = 1")
    with b.app:
        b.app.execute("UPDATE backhaul_replica SET group_id = 'an invoice'")
        b.app.execute("INSERT INTO invoice (id, customer_id, total) VALUES (9, 1, 12.5)")
        b.app.execute("INSERT INTO line VALUES (9, 1, 'tea'), (9, 2, 'milk')")
        b.app.execute("UPDATE backhaul_replica SET group_id = NULL")
    b.write("INSERT INTO customer (id, name) VALUES (100, 'Kim')")
    b.write("UPDATE customer SET phone = '2' WHERE id = 100")
    b.write("DELETE FROM customer WHERE id = 2")
    b.write("UPDATE customer SET phone = '3' WHERE id = 1")


def _takes_a_taken_key(scene: Scene) -> None:
    scene.a.write("INSERT INTO customer (id, name) VALUES (100, 'of a')")
    scene.a.sync()
    scene.b.write("INSERT INTO customer (id, name) VALUES (100, 'of b')")
    scene.b.write("UPDATE customer SET name = 'fine' WHERE id = 1")
    scene.b.write("UPDATE customer SET phone = '2' WHERE id = 100")
    scene.b.write("INSERT INTO invoice (id, customer_id) VALUES (9, 100)")


def _writes_what_cannot_be_sent(scene: Scene) -> None:
    scene.b.write("UPDATE customer SET phone = '1' WHERE id = 1")
    scene.b.write("INSERT INTO customer (id, name) VALUES (100, CAST(x'ff' AS TEXT))")
    scene.b.write("INSERT INTO invoice (id, customer_id) VALUES (9, 100)")
    scene.b.write("INSERT INTO customer (id, name) VALUES (101, 'fine')")


def _hears_news(scene: Scene) -> None:
    a, b = scene.a, scene.b
    b.write("UPDATE customer SET name = 'of b' WHERE id = 1")
    a.write("UPDATE customer SET phone = 'of a', credit = 5 WHERE id = 1")
    a.write("INSERT INTO customer (id, name) VALUES (4, 'Dan')")
    a.write("DELETE FROM customer WHERE id = 3")
    a.write("INSERT INTO invoice (id, customer_id) VALUES (9, 4)")
    a.write("INSERT INTO line VALUES (9, 1, 'tea')")
    a.sync()


def _is_overtaken(scene: Scene) -> None:
    """b's older edit lost, and b pulled between the push and its answer."""
    a, b = scene.a, scene.b
    b.write("UPDATE customer SET name = 'older' WHERE id = 1")
    b.write("UPDATE backhaul_outbox SET captured_at = captured_at - 60000, seen_hlc = 0")
    b.write("UPDATE backhaul_replica SET last_hlc = 0")
    a.write("UPDATE customer SET name = 'newer' WHERE id = 1")
    a.sync()
    plain = b.remote

    class Meanwhile(StoreRemote):
        def push(self, ops: Any) -> Pushed:
            reply = super().push(ops)
            b.pull()
            return reply

    assert isinstance(plain, StoreRemote)
    b.remote = Meanwhile(plain.store, CLOCK, plain.replica)
    b.push()
    b.remote = plain
    a.write("UPDATE customer SET phone = 'more' WHERE id = 2")
    a.sync()


def _has_parked_changes(scene: Scene) -> None:
    _takes_a_taken_key(scene)
    scene.b.sync()
    scene.parked.extend(row["op_id"] for row in scene.b.parked())
    scene.b.write("UPDATE invoice SET total = 5 WHERE id = 9")


def _is_put_back(scene: Scene) -> None:
    """What was sent after the backup waits in it, or was not written yet; and then something else is written."""
    b = scene.b
    b.write("UPDATE customer SET phone = 'waits' WHERE id = 1")
    with closing(sqlite3.connect(scene.folder / "backup.sqlite")) as backup:
        b.app.backup(backup)
        b.write("INSERT INTO customer (id, name) VALUES (100, 'sent since')")
        b.sync()
        backup.backup(b.app)
    b.write("UPDATE customer SET name = 'other' WHERE id = 2")
    b.write("DELETE FROM customer WHERE id = 3")


def _was_away(scene: Scene) -> None:
    """b comes after tombstones were forgotten: one of a record that it has, one of a record that it has edited."""
    a, b = scene.a, scene.b
    a.write("DELETE FROM customer WHERE id = 1")
    a.write("INSERT INTO customer (id, name) VALUES (4, 'Dan'), (5, 'Pat'), (6, 'Sam')")
    a.sync()
    a.sync()
    remote = b.remote
    assert isinstance(remote, StoreRemote)
    remote.store.purge(CLOCK.now() + 200 * DAY)
    b.write("UPDATE customer SET phone = 'fine' WHERE id = 2")


def _has_more_than_its_server(scene: Scene) -> None:
    a, b = scene.a, scene.b
    with (
        closing(sqlite3.connect(scene.folder / "backup.sqlite")) as backup,
        closing(sqlite3.connect(scene.folder / "server.sqlite")) as server,
    ):
        server.backup(backup)
        b.write("UPDATE customer SET name = 'lost' WHERE id = 1")
        b.write("DELETE FROM customer WHERE id = 2")
        b.write("INSERT INTO customer (id, name) VALUES (100, 'lost, too')")
        b.sync()
        b.write("UPDATE customer SET phone = 'acknowledged' WHERE id = 3")
        b.push()
        backup.backup(server)
    a.write("UPDATE customer SET phone = 'since' WHERE id = 1")
    a.sync()


SCENES: dict[str, Callable[[Scene], None]] = {
    "push": _writes,
    "fork": _is_put_back,
    "late": _was_away,
    "restored": _has_more_than_its_server,
    "refusal": _takes_a_taken_key,
    "unsendable": _writes_what_cannot_be_sent,
    "backfill": lambda scene: None,
    "pull": _hears_news,
    "overtaken": _is_overtaken,
    "discard": _has_parked_changes,
}
