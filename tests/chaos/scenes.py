"""Two replicas and a server, each on disk, brought to where one journey of replica b has everything to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backhaul.database import open_database
from backhaul.replica.strategies import Rules
from backhaul.server.memory import StoreRemote
from backhaul.wire import Pushed
from tests.chaos.journeys import CLOCK, run
from tests.convergence.servers import store_server
from tests.replicas import Replica, make_postgresql_replica, make_replica
from tests.services import PostgreSQL

DISPUTES = ("conflict", "resolve", "undo")
RULES = {"customer": Rules(merge={"name": "manual"}), "line": Rules(aggregate="invoice")}
TABLES = ("customer", "invoice", "line")
DAY = 86_400_000
CONFLICTS = "SELECT state, table_name, key, kind, mine, there, theirs, choice FROM backhaul_conflict ORDER BY 2, 3, 1"
OUTBOX = ("kind", "key", "fields", "state", "reason")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """server_url: of the server's database. parked: the ops that a person has looked at, and gives up."""

    server_url: str
    a: Replica
    b: Replica
    parked: list[str] = field(default_factory=list)

    @property
    def job(self) -> dict[str, Any]:
        remote = self.b.remote
        assert isinstance(remote, StoreRemote)
        assert remote.replica is not None
        return {
            "database": self.b.database.engine.url.render_as_string(),
            "server": self.server_url,
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
            "conflicts": self.b.app.execute(CONFLICTS).fetchall(),
            "muted": self.b.app.execute("SELECT muted, group_id FROM backhaul_replica").fetchall(),
            "applied": self._server(
                "SELECT status, count(DISTINCT op_id) FROM server_applied GROUP BY status ORDER BY status"
            ),
            "position": self._server("SELECT position FROM server_scope"),
        }

    def _server(self, statement: str) -> list[Any]:
        database = open_database(self.server_url)
        try:
            with database.reading() as connection:
                return [tuple(row) for row in connection.exec_driver_sql(statement)]
        finally:
            database.close()


@contextmanager
def scene(folder: Path, journey: str, cluster: PostgreSQL | None = None) -> Iterator[Scene]:
    """cluster: where the server and replica b have their databases; None: they are SQLite's, in the folder."""
    folder.mkdir()
    server_url = cluster.database() if cluster else f"sqlite:///{folder / 'server.sqlite'}"
    with store_server(server_url, CLOCK) as server:
        before = BEFORE if journey == "backfill" else ""
        rules = RULES if journey in DISPUTES else None
        a = make_replica(folder / "a.sqlite", server.connect(), schema=SQLITE, code=server.enrol(), rules=rules)
        joining = server.connect(), server.enrol()
        if cluster:
            b = _on_postgresql(cluster.database(), *joining, folder=folder, before=before, rules=rules)
        else:
            b = make_replica(
                folder / "b.sqlite", joining[0], schema=SQLITE, code=joining[1], before=before, rules=rules
            )
            b.app.text_factory = lambda raw: raw.decode(errors="replace")
        made = Scene(server_url=server_url, a=a, b=b)
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


def _on_postgresql(url: str, remote: StoreRemote, code: str, *, folder: Path, before: str, rules: Any) -> Replica:
    return make_postgresql_replica(url, remote, schema=POSTGRESQL, code=code, home=folder, before=before, rules=rules)


SHOP = """
    CREATE TABLE customer ({serial} PRIMARY KEY, name TEXT NOT NULL, phone TEXT, credit INTEGER);
    CREATE TABLE invoice (
        {serial} PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customer (id), total NUMERIC(10, 2));
    CREATE TABLE line (
        invoice_id INTEGER NOT NULL REFERENCES invoice (id), position INTEGER NOT NULL, what TEXT,
        PRIMARY KEY (invoice_id, position));
"""
SQLITE, POSTGRESQL = SHOP.format(serial="id INTEGER"), SHOP.format(serial="id SERIAL")
BEFORE = """
    INSERT INTO customer (id, name) VALUES (50, 'fifty'), (51, 'fifty-one'), (52, 'fifty-two');
    INSERT INTO invoice (id, customer_id, total) VALUES (60, 50, 1.5), (61, 51, 2.5);
"""


def _writes(scene: Scene) -> None:
    """Five changes alone, and a group of three."""
    b = scene.b
    b.write("UPDATE customer SET phone = '1' WHERE id = 1")
    with b.app if b.database.sqlite else b.app.transaction():  # PostgreSQL knows by itself what belongs together
        if b.database.sqlite:
            b.app.execute("UPDATE backhaul_replica SET group_id = 'an invoice'")
        b.app.execute("INSERT INTO invoice (id, customer_id, total) VALUES (9, 1, 12.5)")
        b.app.execute("INSERT INTO line VALUES (9, 1, 'tea'), (9, 2, 'milk')")
        if b.database.sqlite:
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
    with closing(sqlite3.connect(scene.a.path.parent / "backup.sqlite")) as backup:
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
        closing(sqlite3.connect(scene.a.path.parent / "backup.sqlite")) as backup,
        closing(sqlite3.connect(scene.a.path.parent / "server.sqlite")) as server,
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


def _meets_other_edits(scene: Scene) -> None:
    """Of one customer's name, and of an invoice and its lines."""
    a, b = scene.a, scene.b
    a.write("INSERT INTO invoice (id, customer_id, total) VALUES (9, 1, 1)")
    a.write("INSERT INTO line VALUES (9, 1, 'tea')")
    a.sync()
    b.sync()
    b.write("UPDATE customer SET name = 'of b', phone = 'of b' WHERE id = 1")
    b.write("UPDATE line SET what = 'milk'")
    b.write("UPDATE invoice SET total = 2")
    a.write("UPDATE customer SET name = 'of a' WHERE id = 1")
    a.write_together("INSERT INTO line VALUES (9, 2, 'salt')", "UPDATE invoice SET total = 3")
    a.sync()


def _has_conflicts(scene: Scene) -> None:
    _meets_other_edits(scene)
    scene.b.sync()
    scene.b.write("UPDATE customer SET phone = 'later' WHERE id = 1")


def _has_resolved_conflicts(scene: Scene) -> None:
    _has_conflicts(scene)
    run("resolve", scene.job)
    for replica in (scene.b, scene.a, scene.b):
        replica.sync()


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
    "conflict": _meets_other_edits,
    "resolve": _has_conflicts,
    "undo": _has_resolved_conflicts,
}
