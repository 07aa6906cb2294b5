"""The store: every change goes in here (push.py), and the feed comes out (feed.py); each request is one transaction."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from backhaul.clock import stamp
from backhaul.database import Database
from backhaul.errors import DatabaseBusy
from backhaul.merge import Functions
from backhaul.merge.plain import SERVER
from backhaul.migrations import upgrade_server
from backhaul.server import auth, blocks, feed, horizon, leaps, names, outcomes, pasts, push, scopes, tables, writing
from backhaul.server.apply import apply
from backhaul.server.auth import Replica
from backhaul.server.names import Renaming
from backhaul.server.problems import refusal
from backhaul.wire import Blocks, Digest, Op, Pushed, Table, Wanted, problem_name

PURGE_EVERY_MS = 3_600_000
NOTE_EVERY_MS = 60_000  # how far a replica has pulled


class ServerDatabase(Database):
    """A database in which the threads of this process write one after the other.

    SQLite has one writer anyway; waiting here is in turn and at once, where its own waiting is by polling.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database.engine)
        self._turn = threading.Lock()

    @contextmanager
    def writing(self, *, lasting: bool = True) -> Iterator[Connection]:
        if not self.sqlite:
            with super().writing(lasting=lasting) as connection:
                yield connection
        else:
            with self._turn, super().writing(lasting=lasting) as connection:
                yield connection


def prepare(database: Database, now: int) -> None:
    """Make the server's tables and its identity, unless they are there."""
    upgrade_server(database)
    identify(database, now)


def identify(database: Database, now: int) -> None:
    """Give the server its secret, unless it has one."""
    statement = """
        INSERT INTO server_identity (id, secret, created_at)
        VALUES (1, :secret, :now)
        ON CONFLICT (id) DO NOTHING
    """
    with database.writing() as connection:
        connection.execute(text(statement), {"secret": secrets.token_bytes(32), "now": now})


class Store:
    """Everything about records. Every method is one transaction, and raises DatabaseBusy when it cannot be had.

    functions: what `custom` columns may name. horizon_ms: how long deletions are remembered for who does not pull.
    """

    def __init__(
        self, database: Database, functions: Functions | None = None, *, horizon_ms: int = horizon.HORIZON_MS
    ) -> None:
        self.database = database
        self.functions = functions or Functions()
        self._horizon_ms = horizon_ms
        self._heard: dict[str, tuple[int, int]] = {}  # replica -> position and time, as last written
        self._secret = _secret(database)
        self._purged_at = 0

    def declare(self, scope: str, declared: Sequence[Table], replica: str = "") -> list[Table]:
        """The scope's tables, as agreed now, as the replica that declares them calls their columns.

        Raises Refused: `table-invalid`, `schema-conflict`.
        """
        with self.database.writing() as connection:
            scopes.lock(connection, scope)
            agreed = tables.declare(connection, scope, declared, self.functions)
            auth.declare(connection, replica, names.declared(declared))
            if agreed.anew:
                auth.fall_behind(connection, scope, replica)
            _, spoken = auth.names_of(connection, scope, replica)
            return [names.told_table(table, spoken) for table in agreed.tables]

    def push(self, replica: Replica, ops: Sequence[Op], now: int) -> Pushed:
        """One result for each op, in the order of the ops.

        Raises Refused for the push as a whole: `replica-forked`, `sequence-gap`, `replica-revoked`, `cursor-expired`,
        `server-restored`.
        """
        with self.database.writing() as connection:
            results = push.take(connection, replica, ops, now, self.functions)
        self._purge_now_and_then(now)
        return Pushed(results=results, now=now)

    def write(self, scope: str, table: str, key: Sequence[Any], fields: Mapping[str, Any], now: int) -> int:
        """The server's own word: it gives a record these values (Python's own), makes it if it is not there, and stands
        in `server_wins` columns over what replicas write. Returns the version.

        Raises Refused, with the problem that an op would get; Unknown for a scope that is none.
        """
        with self.database.writing() as connection:
            standing = horizon.of_scope(connection, scope)
            position = scopes.lock(connection, scope)
            shapes = tables.shapes(connection, scope, self.functions)
            hlc = max(stamp(now), standing.hlc + 1)
            newest = tables.newest_names_of(shapes)
            table = newest.table(table)
            fields = names.under(fields, newest.columns_of(table))
            op = writing.op_of(connection, scope, shapes, (table, key), fields, hlc=hlc, position=position)
            server = Replica(id=SERVER, scope=scope)
            (result,), reached = apply(connection, server, [op], [], position, self.functions, standing, now)
            if result.problem is not None:
                raise refusal(problem_name(result.problem), result.problem.detail)
            scopes.advance(connection, scope, since=position, to=reached, hlc=hlc, now=now)
        return reached

    def pull(
        self,
        replica: Replica,
        cursor: str,
        limit: int,
        now: int,
        part: feed.Part | None = None,
        *,
        sent: int | None = None,
        settled: int | None = None,
    ) -> feed.OutgoingPage:
        """part: what the round is about, if not everything. sent: how many numbers the replica has given out. settled:
        the number up to which it knows every outcome, if it pushes in one lane.

        Raises Refused: `cursor-expired`, `server-restored`, `replica-forked`, `schema-behind`.
        """
        try:
            with self.database.reading() as connection:
                if sent is not None and outcomes.counted(connection, replica.id) > sent:
                    raise refusal("replica-forked", f"more than {sent} numbers were given to ops before")
                auth.check_is_current(connection, replica.id)
                newest, spoken = auth.names_of(connection, replica.scope, replica.id)
                part = part and _canonical(part, newest)
                due = outcomes.high_water(connection, replica.id) + 1
                page, heard = feed.pull(connection, self._secret, replica.scope, replica.id, cursor, limit, now, part)
                if settled is not None and settled >= due:
                    raise pasts.of_another_past(connection, self._secret, replica.scope, cursor, due)
        except pasts.ServerRestored as restored:
            restored.due = due
            self._heard.clear()  # what was noted before is noted nowhere any more
            with self.database.writing() as connection:
                if leaps.leap(connection, replica.scope, over=restored.seen, common=restored.common, now=now):
                    blocks.leap(connection, replica.scope)
            raise
        if part is None:
            self._note_heard(replica.id, heard, now)
        for record in page.records:
            names.told_record(record, spoken)
        return page

    def records(
        self, scope: str, keys: Sequence[tuple[str, list[Any]]], replica: str = ""
    ) -> list[feed.OutgoingRecord]:
        """Raises Refused: `answer-too-large`, `schema-behind`."""
        with self.database.reading() as connection:
            auth.check_is_current(connection, replica)
            newest, spoken = auth.names_of(connection, scope, replica)
            found = feed.whole(connection, scope, [(newest.table(table), key) for table, key in keys])
        for record in found:
            names.told_record(record, spoken)
        return found

    def blocks(self, replica: Replica, wanted: Mapping[str, Wanted], now: int) -> Blocks:
        """Numbers for the keys that a replica makes up while it is apart."""
        with self.database.writing() as connection:
            newest, spoken = auth.names_of(connection, replica.scope, replica.id)
            shapes = tables.shapes(connection, replica.scope)
            made_up = {newest.table(table): said for table, said in wanted.items()}
            made_up = {table: said for table, said in made_up.items() if table in shapes and shapes[table].generated}
            given = blocks.give(connection, replica.scope, replica.id, made_up, now)
            return Blocks(blocks=names.told_blocks(given, spoken), now=now)

    def digest(self, scope: str, now: int, replica: str = "") -> Digest:
        with self.database.reading() as connection:
            _, spoken = auth.names_of(connection, scope, replica)
            return feed.digest(connection, scope, now, spoken)

    def purge(self, now: int) -> int:
        """Forget the outcomes of ops that are older than 30 days, and tombstones; returns how many outcomes."""
        with self.database.writing() as connection:
            forgotten = outcomes.purge(connection, now)
            scope_names = scopes.names(connection)
        for scope in scope_names:
            with self.database.writing() as connection:
                horizon.collect(connection, scope, now=now, horizon_ms=self._horizon_ms)
        return forgotten

    def _note_heard(self, replica: str, heard: feed.Heard, now: int) -> None:
        """Now and then, for a pull should cost no write: what stands there may lag behind."""
        noted, at = self._heard.get(replica, (-1, 0))
        lately = noted >= heard.forgotten and 0 <= now - at < NOTE_EVERY_MS
        if heard.position < 0 or heard.position == noted or lately:
            return
        with suppress(DatabaseBusy, OperationalError), self.database.writing() as connection:
            horizon.heard(connection, replica, heard.position, now)
            self._heard[replica] = (heard.position, now)

    def _purge_now_and_then(self, now: int) -> None:
        if not 0 <= now - self._purged_at < PURGE_EVERY_MS:
            self._purged_at = now
            self.purge(now)


def _canonical(part: feed.Part, newest: Renaming) -> feed.Part:
    """The part under the newest names."""
    table = newest.table(part.table)
    columns = newest.columns_of(table)
    return feed.Part(table=table, columns=frozenset(columns.get(name, name) for name in part.columns))


def _secret(database: Database) -> bytes:
    with database.reading() as connection:
        return bytes(connection.execute(text("SELECT secret FROM server_identity WHERE id = 1")).scalar_one())
