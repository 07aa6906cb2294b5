"""A replica of a simulated world, with its app, its network and its clock, and what it remembers beside the product.

`world_watched` is the simulation's own table in the replica's database: each change that ever came into the outbox, by
whomever it was put there, and whether a person has given it up (gone), or it has become another row: what the product
itself puts back into the queue (`outbox.resume`), or moves within it (`outbox.gather`), is one change. asked: why a
person was asked about it, as which op. It is put back with the database.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import event

from backhaul.database import Database, open_database
from backhaul.replica import conflicts, enrol
from backhaul.replica.strategies import Rules
from backhaul.server.auth import Replica as Identity
from tests.convergence.app import KEYS, MERGED, RENAMED, RULES, SCHEMA, TABLES, App
from tests.convergence.journal import Said, count
from tests.convergence.network import Network
from tests.replicas import MovedClock, Replica

Rows = dict[str, dict[str, dict[str, Any]]]  # by table and canonical key: the columns beside the key
WATCH = """
    CREATE TABLE world_watched (
        id INTEGER PRIMARY KEY, kind TEXT, table_name TEXT, key TEXT, fields TEXT, gone INTEGER NOT NULL DEFAULT 0,
        asked TEXT, asked_op TEXT);
    INSERT INTO world_watched (id, kind, table_name, key, fields)
    SELECT id, kind, table_name, key, fields FROM backhaul_outbox WHERE kind <> 'void';
    CREATE TRIGGER world_watch AFTER INSERT ON backhaul_outbox WHEN NEW.kind <> 'void' BEGIN
        INSERT INTO world_watched (id, kind, table_name, key, fields)
        VALUES (NEW.id, NEW.kind, NEW.table_name, NEW.key, NEW.fields);
    END;
    CREATE TRIGGER world_resumed AFTER DELETE ON backhaul_outbox WHEN OLD.state = 'parked' AND EXISTS (
        SELECT 1 FROM backhaul_outbox
        WHERE again = 1 AND id > OLD.id AND captured_at = OLD.captured_at AND table_name = OLD.table_name
          AND key = OLD.key AND kind = OLD.kind AND fields IS OLD.fields) BEGIN
        UPDATE world_watched SET gone = 1 WHERE id = OLD.id;
    END;
    CREATE TRIGGER world_joined AFTER DELETE ON backhaul_outbox WHEN OLD.state = 'pending' AND EXISTS (
        SELECT 1 FROM backhaul_outbox
        WHERE id > OLD.id AND group_id = OLD.group_id AND table_name = OLD.table_name AND key = OLD.key
          AND kind = OLD.kind AND fields IS OLD.fields AND captured_at = OLD.captured_at) BEGIN
        UPDATE world_watched SET gone = 1 WHERE id = OLD.id;
    END;
    CREATE TRIGGER world_asked AFTER UPDATE OF state ON backhaul_outbox WHEN NEW.state IN ('parked', 'conflict') BEGIN
        UPDATE world_watched SET asked = NEW.reason, asked_op = NEW.op_id WHERE id = NEW.id;
    END;
"""


@dataclass
class SkewedClock:
    """A replica's own clock, that many milliseconds beside the world's."""

    world: MovedClock
    skew: int

    def now(self) -> int:
        return self.world.now() + self.skew

    def julian_day(self, _now: object) -> float:
        return self.now() / 86_400_000 + 2_440_587.5


@dataclass(kw_only=True)
class Branch:
    """unsaved: changes that went with a disk, and may have arrived before. renamed, added, dropped: what was done to
    its table `tag`. decided: the conflicts that were resolved here."""

    replica: Replica
    network: Network
    app: App
    clock: SkewedClock
    page: int
    unsaved: Counter[Said] = field(default_factory=Counter)
    decided: list[int] = field(default_factory=list)
    saved_as: Identity | None = None
    was_put_back: bool = False
    altered: bool = False  # since `init`

    # what waits, and what was given up

    def waiting(self) -> dict[int, tuple[str, str, str, str | None]]:
        """What is in no way settled: parked, in conflict, or yet to go."""
        rows = self.replica.app.execute(
            "SELECT id, kind, table_name, key, CAST(fields AS TEXT) FROM backhaul_outbox"
            " WHERE kind <> 'void' AND state <> 'acked'"
        )
        return {row[0]: tuple(row[1:]) for row in rows}

    def held(self) -> set[int]:
        """What only a person can take out of the outbox."""
        rows = self.replica.app.execute("SELECT id FROM backhaul_outbox WHERE state IN ('parked', 'conflict')")
        return {row[0] for row in rows}

    @contextmanager
    def a_person(self, *, alone: bool = True) -> Iterator[None]:
        """What goes out of the outbox now, goes by a person's word. alone: nothing else happens meanwhile."""
        before, meanwhile = set(self.waiting()) if alone else self.held(), self.network.weather.meanwhile
        if alone:
            self.network.weather.meanwhile = 0
        try:
            yield
        finally:
            self.network.weather.meanwhile = meanwhile
            gone = [(number,) for number in before - self.waiting().keys()]
            with self.replica.app:
                self.replica.app.executemany("UPDATE world_watched SET gone = 1 WHERE id = ?", gone)

    def watched(self, *, gone: bool | None = False, after: int = 0) -> Counter[Said]:
        which = "" if gone is None else f" AND gone = {int(gone)}"
        return count(
            self.replica.app.execute(
                f"SELECT kind, table_name, key, CAST(fields AS TEXT) FROM world_watched WHERE id > ?{which}", (after,)
            )
        )

    def unsure(self, *, purged: bool, forgotten: Iterable[str]) -> Counter[Said]:
        """What a person was asked about though the server may have taken it, for its outcome is forgotten (purged): an
        increment; a record that was made once more by a database from before, and has been changed since; the edit of
        one that is gone by now, by such a database; and what waits with one of these. And what such a database has in a
        conflict, as an op that the server has taken and forgotten (those ops), unless it adds."""
        asked = {row[0] for row in self.replica.app.execute("SELECT DISTINCT asked FROM world_watched")}
        causes = asked & {"outcome-forgotten", *(["key-taken", "record-gone"] if purged and self.was_put_back else [])}
        reasons = sorted(causes | {"depends-on-refused", "depends-on-parked"} if causes else causes)
        return count(
            self.replica.app.execute(
                "SELECT kind, table_name, key, CAST(fields AS TEXT) FROM world_watched"
                " WHERE asked IN (SELECT value FROM json_each(:reasons))"
                " OR :before AND asked LIKE '%conflict' AND asked_op IN (SELECT value FROM json_each(:forgotten))"
                " AND (table_name <> :adds OR kind = 'insert')",
                {
                    "reasons": json.dumps(reasons),
                    "before": purged and self.was_put_back,
                    "forgotten": json.dumps(list(forgotten)),
                    "adds": MERGED,
                },
            )
        )

    def contested(self) -> set[tuple[str, str]]:
        """The records that are in conflicts, or are withheld for one."""
        rows = self.replica.app.execute(
            "SELECT table_name, key FROM backhaul_conflict WHERE state IN ('open', 'withheld')"
        )
        return set(rows)

    def open_conflicts(self) -> list[int]:
        with self.replica.database.reading() as connection:
            return conflicts.numbers(connection)

    # what is there

    def rows(self) -> Rows:
        return {table: self._rows(table) for table in TABLES}

    def _rows(self, table: str) -> dict[str, dict[str, Any]]:
        cursor = self.replica.app.execute(f"SELECT * FROM {table}")
        names = [RENAMED.get(table, {}).get(one[0], one[0]) for one in cursor.description]
        found = {}
        for row in cursor:
            fields = dict(zip(names, row, strict=True))
            key = [fields.pop(name) for name in KEYS.get(table, ("name",))]
            found[json.dumps(key, separators=(",", ":"))] = fields
        return found

    def state(self) -> object:
        known = self.replica.app.execute("SELECT position, recovering FROM backhaul_replica").fetchone()
        return known, self.replica.states(), self.rows()

    @property
    def rules(self) -> dict[str, Rules]:
        columns = [row[1] for row in self.replica.app.execute("PRAGMA table_info(tag)")]
        return RULES | ({"tag": Rules(renamed=RENAMED["tag"])} if "hue" in columns else {})

    # backups

    def back_up(self) -> None:
        with sqlite3.connect(self._backup) as target:
            self.replica.app.backup(target)
        target.close()
        self.saved_as = self.network.identity

    def put_back(self, *, token_too: bool) -> None:
        with sqlite3.connect(self._backup) as saved:
            (last,) = saved.execute("SELECT coalesce(max(id), 0) FROM world_watched").fetchone()
        saved.close()
        self.unsaved += self.watched(gone=None, after=last)
        self.replica.close()
        for beside in self.replica.path.parent.glob(f"{self.replica.path.name}-*"):
            beside.unlink()
        shutil.copy(self._backup, self.replica.path)
        self.replica.app = self.app.connection = _connected(self.replica.path, self.clock)
        self.replica.database = _database(self.replica.path, self.clock)
        if token_too:
            self.network.identity = self.saved_as
        self.decided, self.was_put_back = [], True

    @property
    def has_backup(self) -> bool:
        return self._backup.exists()

    @property
    def _backup(self) -> Path:
        return self.replica.path.with_suffix(".backup")


def make_replica(path: Path, network: Network, code: str, clock: SkewedClock) -> Replica:
    app = _connected(path, clock)
    app.executescript(SCHEMA)
    database = _database(path, clock)
    home = str(path.parent)
    enrol.enrol(
        database, network, code=code, url="memory:", home=home, name=path.stem, names=[], clock=clock, rules=RULES
    )
    app.executescript(WATCH)
    return Replica(database=database, remote=network, path=path, app=app, clock=clock)


def _connected(path: Path, clock: SkewedClock) -> sqlite3.Connection:
    """The triggers tell the time with SQLite's own clock, which is to be this replica's."""
    app = sqlite3.connect(path)
    app.create_function("julianday", 1, clock.julian_day)
    app.execute("PRAGMA synchronous = OFF")  # no power fails here
    return app


def _database(path: Path, clock: SkewedClock) -> Database:
    database = open_database(f"sqlite:///{path}")

    @event.listens_for(database.engine, "connect")
    def _opened(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")
        connection.create_function("julianday", 1, clock.julian_day)

    return database
