"""The store: every change goes in here, in one transaction a push, and the feed comes out.

A push is a handful of statements, whatever it holds: lock the scope, read the mark, the tables and the records that
the batch is about; decide and merge in memory; write the records, the outcomes, the position and the mark. Where it
may be cut: before the commit nothing happened, and the same bytes come again; after it the outcomes are stored, and
the same bytes get them again.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from backhaul.clock import stamp, stamp_from_text, stamp_milliseconds, stamp_to_text
from backhaul.database import Database
from backhaul.errors import DatabaseBusy
from backhaul.merge import Functions, State, merge
from backhaul.merge.aggregate import Aggregates
from backhaul.merge.plain import SERVER
from backhaul.migrations import upgrade_server
from backhaul.server import (
    aggregates,
    auth,
    blocks,
    conflicts,
    feed,
    former,
    horizon,
    names,
    outcomes,
    records,
    scopes,
    tables,
    trial,
    writing,
)
from backhaul.server.admission import Item, read, refuse
from backhaul.server.auth import Replica
from backhaul.server.gone import refuse_gone
from backhaul.server.horizon import Standing
from backhaul.server.names import Speech
from backhaul.server.problems import is_conflict, problem, refusal
from backhaul.server.records import Place
from backhaul.server.tables import Shape
from backhaul.wire import Blocks, Digest, Op, Pushed, Result, Status, Table, Wanted, canonical_key, problem_name

MOST_DRIFT_MS = 60_000  # a stamp further ahead of our clock would win against every honest one for that long
PURGE_EVERY_MS = 3_600_000
NOTE_EVERY_MS = 60_000  # how far a replica has pulled
STAMPED = ("insert", "update", "delete")  # the kinds whose stamp counts


class ServerDatabase(Database):
    """A database in which the threads of this process write one after the other.

    SQLite has one writer anyway; waiting here is in turn and at once, where its own waiting is by polling.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database.engine)
        self._turn = threading.Lock()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        if not self.sqlite:
            with super().writing() as connection:
                yield connection
        else:
            with self._turn, super().writing() as connection:
                yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with super().reading() as connection:
            if not self.sqlite:
                connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
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
            spoken = _spoken(connection, scope, replica)
            return [names.told_table(table, spoken) for table in agreed]

    def push(self, replica: Replica, ops: Sequence[Op], now: int) -> Pushed:
        """One result for each op, in the order of the ops.

        Raises Refused for the push as a whole: `replica-forked`, `sequence-gap`, `replica-revoked`, `cursor-expired`.
        """
        with self.database.writing() as connection:
            position = scopes.lock(connection, replica.scope)
            mark = outcomes.high_water(connection, replica.id)
            standing = horizon.standing(connection, replica)
            fresh = _fresh(ops, mark)
            results = outcomes.replay(connection, replica.id, [op for op in ops if op.seq <= mark])
            accepted = _undrifted(fresh, now, standing.hlc)
            if accepted:
                results |= former.known(connection, replica.id, accepted)
                new = [op for op in accepted if op.seq not in results]
                refused = [(op, results[op.seq]) for op in ops if op.seq in results and results[op.seq].problem]
                settled, reached = _apply(connection, replica, new, refused, position, self.functions, standing, now)
                results |= {op.seq: result for op, result in zip(new, settled, strict=True)}
                outcomes.keep(connection, replica.id, accepted, [results[op.seq] for op in accepted], now)
                first, last = ops[0].seq, accepted[-1].seq
                outcomes.advance(connection, replica.id, since=mark, to=last, first=first, now=now)
                scopes.advance(connection, replica.scope, since=position, to=reached, hlc=_highest(new), now=now)
            if any(result.problem is not None and result.problem.theirs for result in results.values()):
                names.told_problems(ops, results, _spoken(connection, replica.scope, replica.id))
        self._purge_now_and_then(now)
        results |= {op.seq: _drifted(op, now) for op in fresh[len(accepted) :]}
        return Pushed(results=[results[op.seq] for op in ops], now=now)

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
            op = writing.op_of(connection, scope, shapes, (table, key), fields, hlc=hlc, position=position)
            server = Replica(id=SERVER, scope=scope)
            (result,), reached = _apply(connection, server, [op], [], position, self.functions, standing, now)
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
    ) -> feed.OutgoingPage:
        """part: what the round is about, if not everything. sent: the last number that the replica has given out.

        Raises Refused: `cursor-expired`, `server-restored`, `replica-forked`.
        """
        try:
            with self.database.reading() as connection:
                if sent is not None and outcomes.high_water(connection, replica.id) > sent:
                    raise refusal("replica-forked", f"numbers beyond {sent} were given to ops before")
                spoken = _spoken(connection, replica.scope, replica.id)
                part = part and _canonical(part, spoken)
                page, heard = feed.pull(connection, self._secret, replica.scope, replica.id, cursor, limit, now, part)
        except feed.ServerRestored as restored:
            with self.database.writing() as connection:
                if scopes.leap(connection, replica.scope, over=restored.seen, now=now):
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
        """Raises Refused: `answer-too-large`."""
        with self.database.reading() as connection:
            spoken = _spoken(connection, scope, replica)
            found = feed.whole(connection, scope, keys)
        for record in found:
            names.told_record(record, spoken)
        return found

    def blocks(self, replica: Replica, wanted: Mapping[str, Wanted], now: int) -> Blocks:
        """Numbers for the keys that a replica makes up while it is apart."""
        with self.database.writing() as connection:
            return Blocks(blocks=blocks.give(connection, replica.scope, replica.id, wanted, now), now=now)

    def digest(self, scope: str, now: int, replica: str = "") -> Digest:
        with self.database.reading() as connection:
            return feed.digest(connection, scope, now, _spoken(connection, scope, replica))

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


def _spoken(connection: Connection, scope: str, replica: str) -> Speech:
    """What the replica calls the columns that were renamed since it has said them."""
    renamed = {name: shape.renamed for name, shape in tables.shapes(connection, scope).items() if shape.renamed}
    return names.speech(renamed, auth.declared(connection, replica)) if renamed else {}


def _canonical(part: feed.Part, spoken: Speech) -> feed.Part:
    """The part under the newest names of its columns."""
    newest = {old: new for new, old in spoken.get(part.table, {}).items()}
    return feed.Part(table=part.table, columns=frozenset(newest.get(name, name) for name in part.columns))


def _secret(database: Database) -> bytes:
    with database.reading() as connection:
        return bytes(connection.execute(text("SELECT secret FROM server_identity WHERE id = 1")).scalar_one())


def _fresh(ops: Sequence[Op], mark: int) -> list[Op]:
    """The ops that have no outcome yet. Raises Refused `sequence-gap`."""
    fresh = [op for op in ops if op.seq > mark]
    for expected, op in enumerate(fresh, start=mark + 1):
        if op.seq != expected:
            raise refusal("sequence-gap", f"number {expected} is due where {op.seq} stands", due=expected)
    return fresh


def _highest(ops: Sequence[Op]) -> int:
    """The highest of the stamps that count."""
    highest = max((op.hlc for op in ops if op.kind in STAMPED), default="")
    return stamp_from_text(highest) if highest else 0


def _undrifted(ops: Sequence[Op], now: int, taken: int) -> Sequence[Op]:
    """The ops before the first one whose clock is too far ahead, and before the first of its group.

    taken: the highest stamp of the scope. If our own clock was ahead once, it may be: then stamps go on from there.
    """
    latest = max(now + MOST_DRIFT_MS, stamp_milliseconds(taken) + 1)
    first_refused = stamp_to_text(stamp(latest + 1))  # stamps sort as text
    cut = next((index for index, op in enumerate(ops) if op.hlc >= first_refused and op.kind in STAMPED), len(ops))
    started: dict[str, int] = {}
    for index, op in enumerate(ops):
        if op.group is not None:
            started.setdefault(op.group, index)
    for index in range(len(ops) - 1, -1, -1):  # a group that begins earlier moves the cut, which may meet another
        if index < cut:
            break
        group = ops[index].group
        cut = cut if group is None else min(cut, started[group])
    return ops[:cut]


def _drifted(op: Op, now: int) -> Result:
    detail = f"a stamp may be {MOST_DRIFT_MS} ms ahead of {now}; send it again, stamped anew or later"
    return Result(op=op.op, status="retry", problem=problem("clock-drift", detail, op=op.op))


def _apply(
    connection: Connection,
    replica: Replica,
    ops: Sequence[Op],
    refused: Sequence[tuple[Op, Result]],
    position: int,
    functions: Functions,
    standing: Standing,
    now: int,
) -> tuple[list[Result], int]:
    """The result of each op, and the position after them. refused: the ops of this push that were refused before."""
    shapes = tables.shapes(connection, replica.scope, functions)
    renamed = {name: shape.renamed for name, shape in shapes.items() if shape.renamed}
    if renamed:
        ops = names.read(ops, renamed)
        refused = list(zip(names.read([op for op, _ in refused], renamed), [one for _, one in refused], strict=True))
    items = [read(_modest(op, position), shapes, replica.id) for op in ops]
    places = {item.place: None for item in items if item.place is not None and item.change is not None}
    states = records.find(connection, replica.scope, places)
    before = [Item(op=op, place=(op.table, canonical_key(op.key)), problem=result.problem) for op, result in refused]
    former.refuse_forgotten(items, now)
    refuse_gone(items, states, standing.collected)
    whole = Aggregates(shapes)
    while True:
        refuse(before + items, states, shapes, replica.id)
        conflicts.find_roots(before + items, states, whole)
        marks = aggregates.find(connection, replica.scope, {root: None for item in items for root in item.roots})
        conflicts.hold(before + items, states, shapes, whole, marks, replica.id)
        versions, reached = _versions(items, position)
        try:
            merged = _merged(items, states, versions, shapes, whole)
        except Exception:
            if not trial.blame(items, states, shapes):
                raise
            continue
        if not trial.refuse_too_large(items, states, merged, shapes):
            break
    records.keep(connection, replica.scope, merged)
    aggregates.keep(connection, replica.scope, conflicts.changed_roots(items, merged), replica.id)
    return [_result(item, version) for item, version in zip(items, versions, strict=True)], reached


def _modest(op: Op, position: int) -> Op:
    """An app cannot have seen what is not there yet: it saw it before this server was put back, and it counts for
    nothing now."""
    return op if op.base <= position else msgspec.structs.replace(op, base=0)


def _versions(items: Sequence[Item], position: int) -> tuple[list[int], int]:
    """One new version for each group that is accepted, in the order of their first ops; 0 for what is refused."""
    versions: list[int] = []
    of_group: dict[str, int] = {}
    for item in items:
        group = item.op.group
        if item.problem is not None:
            versions.append(0)
        elif group in of_group and group is not None:
            versions.append(of_group[group])
        else:
            position += 1
            versions.append(position)
            if group is not None:
                of_group[group] = position
    return versions, position


def _merged(
    items: Sequence[Item],
    states: Mapping[Place, State],
    versions: Sequence[int],
    shapes: Mapping[str, Shape],
    whole: Aggregates,
) -> dict[Place, State]:
    """The records that are not as they were, by group: versions only grow."""
    changed: dict[Place, State] = {}
    for version, item in sorted(zip(versions, items, strict=True), key=lambda pair: pair[0]):
        if version and item.change is not None and item.place is not None:
            before = changed.get(item.place) or states.get(item.place)
            after = merge(before, item.change, version, shapes[item.op.table].strategies)
            if after is not before:
                changed[item.place] = conflicts.remembering_root(before, after, whole.columns(item.op.table))
    return changed


def _result(item: Item, version: int) -> Result:
    if item.problem is not None:
        status: Status = "conflict" if is_conflict(item.problem) else "rejected"
        return Result(op=item.op.op, status=status, problem=item.problem)
    return Result(op=item.op.op, status="applied", version=version)
