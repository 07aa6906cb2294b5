"""Replicas for tests: an app's database, made a replica of a server in memory (or of any remote), in one line."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

from sqlalchemy import make_url

from backhaul.clock import SystemClock
from backhaul.database import Database, open_database
from backhaul.remotes.base import Remote
from backhaul.replica import enrol, outbox, pull, push

SHOP = """
    CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, phone TEXT, credit NUMERIC(10, 2), photo BLOB);
    CREATE TABLE invoice (
        id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customer (id), total NUMERIC(10, 2));
    CREATE TABLE line (
        invoice_id INTEGER NOT NULL REFERENCES invoice (id), position INTEGER NOT NULL, what TEXT,
        PRIMARY KEY (invoice_id, position));
"""


OUTBOX = "backhaul_outbox"


class Undisturbed:
    """The context of a run that nobody stops."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def check(self) -> None:
        pass

    def progress(self, said: dict[str, Any]) -> None:
        self.said.append(said)


@dataclass
class MovedClock:
    """A clock that stands until it is moved."""

    moment: int = 1_800_000_000_000

    def now(self) -> int:
        return self.moment


@dataclass
class Replica:
    """An app's database and its remote. `app` is the app's own connection, without any hook."""

    database: Database
    remote: Remote
    path: Path
    app: sqlite3.Connection
    context: Undisturbed = field(default_factory=Undisturbed)
    clock: Any = field(default_factory=SystemClock)

    def write(self, statement: str, *values: Any) -> None:
        with self.app:
            self.app.execute(statement, values)

    def write_together(self, *statements: str) -> None:
        """One transaction, as an app makes it whose engine is hooked."""
        with self.app:
            self.app.execute("UPDATE backhaul_replica SET group_id = ?", (token_hex(8),))
            for statement in statements:
                self.app.execute(statement)
            self.app.execute("UPDATE backhaul_replica SET group_id = NULL")

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        return sorted(self.app.execute(f"SELECT * FROM {table}").fetchall(), key=repr)

    def push(self, **options: Any) -> push.Sent:
        return push.push(self.database, self.remote, clock=self.clock, context=self.context, **options)

    def pull(self, **options: Any) -> pull.Received:
        return pull.pull(self.database, self.remote, clock=self.clock, context=self.context, **options)

    def sync(self) -> None:
        self.pull()
        self.push()
        self.pull()

    def outbox(self) -> list[dict[str, Any]]:
        self.app.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in self.app.execute("SELECT * FROM backhaul_outbox ORDER BY id")]
        finally:
            self.app.row_factory = None

    def states(self) -> dict[str, int]:
        rows = self.app.execute("SELECT state, count(*) FROM backhaul_outbox GROUP BY state")
        return dict(rows.fetchall())

    def parked(self) -> list[Any]:
        with self.database.reading() as connection:
            return list(outbox.parked(connection))

    def asked(self, statement: str) -> list[tuple[Any, ...]]:
        return list(self.app.execute(statement).fetchall())

    def close(self) -> None:
        self.app.close()
        self.database.close()


class PostgreSQLReplica(Replica):
    """The same, of a database of PostgreSQL. `app` is the app's own psycopg connection; it commits each `write`."""

    def write(self, statement: str, *values: Any) -> None:
        with self.app.transaction():
            self.app.execute(statement.replace("?", "%s"), values or None)

    def write_together(self, *statements: str) -> None:
        with self.app.transaction():
            for statement in statements:
                self.app.execute(statement)

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        return sorted(self.asked(f"SELECT * FROM {table}"), key=repr)

    def outbox(self) -> list[dict[str, Any]]:
        with self.database.reading() as connection:
            return [dict(row) for row in connection.exec_driver_sql(f"SELECT * FROM {OUTBOX} ORDER BY id").mappings()]

    def states(self) -> dict[str, int]:
        return dict(self.asked(f"SELECT state, count(*) FROM {OUTBOX} GROUP BY state"))


def captured(replica: Replica) -> list[tuple[str, str, object, object]]:
    """Each change in the outbox: table, kind, key and fields."""
    return [
        (row["table_name"], row["kind"], json.loads(row["key"]), json.loads(row["fields"]) if row["fields"] else None)
        for row in replica.outbox()
    ]


def make_replica(
    path: Path, remote: Remote, *, schema: str = SHOP, code: str, before: str = "", rules: Any = None
) -> Replica:
    """before: SQL that runs before `init`: rows for the backfill. rules: merge strategies, by table."""
    app = sqlite3.connect(path)
    app.executescript(schema + before)
    database = open_database(f"sqlite:///{path}")
    enrol.enrol(
        database,
        remote,
        code=code,
        url="memory:",
        home=str(path.parent),
        name=path.stem,
        names=[],
        clock=SystemClock(),
        rules=rules,
    )
    return Replica(database=database, remote=remote, path=path, app=app)


def make_postgresql_replica(
    url: str,
    remote: Remote,
    *,
    schema: str,
    code: str,
    home: Path,
    before: str = "",
    name: str = "pg",
    rules: Any = None,
) -> PostgreSQLReplica:
    """url: of an empty database."""
    import psycopg

    app: Any = psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(False), autocommit=True)
    app.execute(schema + before)
    database = open_database(url)
    enrol.enrol(
        database,
        remote,
        code=code,
        url="memory:",
        home=str(home),
        name=name,
        names=[],
        clock=SystemClock(),
        rules=rules,
    )
    return PostgreSQLReplica(database=database, remote=remote, path=home, app=app)
