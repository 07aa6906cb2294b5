"""A world of replicas around one server, in which everything happens that one seed says."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import event

from backhaul.backoff import Backoff
from backhaul.clock import Clock
from backhaul.database import open_database
from backhaul.errors import TryLater, Unknown
from backhaul.replica import enrol, parked
from backhaul.replica.reconcile import compare
from tests.convergence.app import FIELDS, RULES, SCHEMA, TABLES, App
from tests.convergence.network import MERGED, Killed, Network, Said, Weather, said
from tests.convergence.servers import Server
from tests.replicas import MovedClock, Replica

BEGINNING = 1_800_000_000_000
MINUTE = 60_000
MOST_SKEW = 10 * MINUTE
ROUNDS = 30
BATCHES = [1, 2, 5, 20, 1_000]
RETRY = Backoff(initial_ms=1_000, most_ms=5 * MINUTE)
PARKED_FOR = {"key-taken", "depends-on-refused", "depends-on-parked", "malformed", "batch-too-large"}

Rows = dict[str, dict[str, tuple[Any, ...]]]  # by table and canonical key


@dataclass
class SkewedClock:
    """A replica's own clock, that many milliseconds beside the world's."""

    world: MovedClock
    skew: int

    def now(self) -> int:
        return self.world.now() + self.skew


@dataclass(kw_only=True)
class Branch:
    """A replica with its app, its network and its clock. captured: its changes. given_up: those discarded, by op id."""

    replica: Replica
    network: Network
    app: App
    clock: SkewedClock
    page: int
    captured: Counter[Said] = field(default_factory=Counter)
    given_up: dict[str, Said] = field(default_factory=dict)
    letters: set[str] = field(default_factory=set)  # those that its app has put into notes
    looked_at: int = 0

    def note_captured(self) -> None:
        """Enter what the outbox holds that is new, before it can be sent."""
        statement = "SELECT id, kind, table_name, key, fields FROM backhaul_outbox WHERE id > ? AND kind <> 'void'"
        for number, *change in self.replica.app.execute(statement, (self.looked_at,)).fetchall():
            self.looked_at = number
            self.captured[said(*change)] += 1
            if change[1] == MERGED:
                self.letters |= _letters(change[3])

    def skip_captured(self) -> None:
        """What is new in the outbox is not the app's doing: retried changes, and numbers filled with nothing."""
        (self.looked_at,) = self.replica.app.execute(
            "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'backhaul_outbox'"
        ).fetchone()

    def parked(self) -> dict[str, Said]:
        rows = self.replica.parked()
        return {row["op_id"]: said(row["kind"], row["table_name"], row["key"], row["fields"]) for row in rows}

    def rows(self) -> Rows:
        return {table: {_key(table, row): row for row in self.replica.rows(table)} for table in TABLES}


class World:
    """Whatever happens in it is drawn from `random`."""

    def __init__(self, server: Server, clock: MovedClock, folder: Path, random: Random) -> None:
        self.random = random
        self.clock = clock
        self.server = server
        self.branches: list[Branch] = []
        for number in range(1, self.random.choice([2, 3, 3, 4]) + 1):
            self.branches.append(self._branch(folder, number))

    def live(self, steps: int) -> None:
        for branch in self.branches:
            branch.network.weather = Weather()
        for _ in range(steps):
            self.clock.moment += self.random.choice([0, 0, 1, 7, 500, 3_000, 40_000, 200_000])
            self._step(self.random.choice(self.branches))

    def heal(self) -> None:
        """The weather clears, and everyone syncs until nothing moves any more."""
        for branch in self.branches:
            branch.network.weather = Weather.calm()
            branch.network.deliver_late()
        self._sync_until_quiet()

    def give_up_parked(self) -> None:
        for branch in self.branches:
            self._discard(branch, everything=True)
        self._sync_until_quiet()

    def close(self) -> None:
        for branch in self.branches:
            branch.replica.close()

    # -------------------------------------------------------------------------------------------- what must be true

    def check_what_is_parked(self) -> None:
        for branch in self.branches:
            assert set(branch.replica.states()) <= {"parked"}, branch.replica.outbox()
            assert {row["reason"] for row in branch.replica.parked()} <= PARKED_FOR

    def check_nothing_is_lost_or_doubled(self) -> None:
        """Every change that was captured was taken by the server once, or is parked, or was given up by a person."""
        for branch in self.branches:
            taken = branch.network.book.applied
            known = taken + Counter(branch.parked().values()) + Counter(branch.given_up.values())
            assert known == branch.captured, f"lost: {branch.captured - known}; doubled: {known - branch.captured}"

    def check_all_are_equal_but_for_what_is_parked(self) -> None:
        reference = self.branches[0]
        for branch in self.branches[1:]:
            held = {(table, key) for one in (reference, branch) for _, table, key, _ in one.parked().values()}
            assert _without(branch.rows(), held) == _without(reference.rows(), held)

    def check_all_are_equal_to_the_server(self) -> None:
        for branch in self.branches:
            assert branch.replica.outbox() == []
            comparison = compare(branch.replica.database, branch.network, context=branch.replica.context)
            assert comparison.equal, comparison
            assert branch.rows() == self.branches[0].rows()

    def check_every_value_was_written(self) -> None:
        """What stands in a field is what some accepted change wrote there."""
        written = {
            (table, key, name, json.dumps(value))
            for branch in self.branches
            for (_, table, key, fields) in branch.network.book.applied
            if table != MERGED
            for name, value in json.loads(fields).items()
        }
        names = {table: [row[1] for row in self._columns(table)] for table in TABLES}
        for table, rows in self.branches[0].rows().items():
            for key, row in rows.items():
                for name, value in zip(names[table], row, strict=True):
                    if name in FIELDS.get(table, []):
                        assert (table, key, name, json.dumps(_wire(value))) in written

    def check_what_is_merged(self) -> None:
        """Each increment that was accepted counts once; a label that was put and never cut is there; the greatest
        number stands; and each letter that was not given up is there once."""
        merged = [one for branch in self.branches for one in branch.network.book.merged]
        rows = self.branches[0].rows()[MERGED]
        for key, (_, stock, labels, _, best) in rows.items():
            said = [fields for of, fields in merged if of == key]
            assert stock == sum(fields["stock"]["add"] for fields in said if isinstance(fields.get("stock"), dict))
            changes = [fields["labels"] for fields in said if isinstance(fields.get("labels"), dict)]
            put = {label for change in changes for label in change.get("put", [])}
            cut = {label for change in changes for label in change.get("cut", [])}
            assert put - cut <= set(json.loads(labels)) <= put
            assert best == max([fields["best"] for fields in said if "best" in fields])
        written = "".join(note for _, _, _, note, _ in rows.values())
        assert len(written) == len(set(written))
        for branch in self.branches:
            if not any(table == MERGED for _, table, _, _ in branch.given_up.values()):
                assert branch.letters <= set(written)

    # -------------------------------------------------------------------------------------------- what happens

    def _step(self, branch: Branch) -> None:
        deed = self.random.choices(
            [self._work, self._push, self._pull, self._retry, self._discard, self._late, self._turn_clock],
            weights=[8, 4, 4, 0.5, 0.5, 0.5, 0.2],
        )[0]
        deed(branch)

    def _meanwhile(self, branch: Branch) -> None:
        """Other processes of the same machine, while one of them waits for the network."""
        deed = self.random.choices([self._work, self._push, self._pull, self._discard], weights=[3, 2, 3, 1])[0]
        deed(branch)

    def _work(self, branch: Branch) -> None:
        branch.app.work()
        branch.note_captured()

    def _push(self, branch: Branch) -> None:
        with _surviving():
            batch = self.random.choice(BATCHES)
            branch.replica.push(batch=batch, retry=RETRY, alone=self.random.random() < 0.2)
        branch.skip_captured()

    def _pull(self, branch: Branch) -> None:
        with _surviving():
            branch.replica.pull(limit=branch.page)

    def _retry(self, branch: Branch) -> None:
        with suppress(Unknown):
            parked.retry(branch.replica.database, self._some_parked(branch), now=branch.clock.now())
        branch.skip_captured()

    def _discard(self, branch: Branch, *, everything: bool = False) -> None:
        before = branch.parked()
        with _surviving(), suppress(Unknown):
            parked.discard(branch.replica.database, branch.network, [] if everything else self._some_parked(branch))
        after = branch.parked()
        branch.given_up |= {op_id: said for op_id, said in before.items() if op_id not in after}

    def _some_parked(self, branch: Branch) -> list[str]:
        rows = branch.replica.parked()
        return [str(row["op_id"]) for row in self.random.sample(rows, min(len(rows), self.random.randint(1, 3)))]

    def _late(self, branch: Branch) -> None:
        branch.network.deliver_late()

    def _turn_clock(self, branch: Branch) -> None:
        branch.clock.skew = self.random.randint(-MOST_SKEW, MOST_SKEW)

    def _sync_until_quiet(self) -> None:
        for _ in range(ROUNDS):
            before = [_state(branch) for branch in self.branches]
            for branch in self.branches:
                self.clock.moment += 10 * MINUTE  # every lease and every wait is over
                branch.replica.pull(limit=branch.page)
                branch.replica.push(batch=self.random.choice(BATCHES))
                branch.skip_captured()
                branch.replica.pull(limit=branch.page)
            if [_state(branch) for branch in self.branches] == before:
                return
        raise AssertionError(f"not quiet after {ROUNDS} rounds: {[one.replica.states() for one in self.branches]}")

    def _branch(self, folder: Path, number: int) -> Branch:
        clock = SkewedClock(self.clock, self.random.randint(-MOST_SKEW, MOST_SKEW))
        network = Network(
            self.server.connect(),
            self.random,
            self.random.choice([8, 20, 1_000]),
            meanwhile=lambda: self._meanwhile(self.branches[number - 1]),
        )
        path = folder / f"branch {number}.sqlite"
        replica = _replica(path, network, self.server.enrol(), clock)
        app = App(replica.app, self.random, clock, number, poison=self.random.choice([0, 0, 0.03]))
        return Branch(
            replica=replica,
            network=network,
            app=app,
            clock=clock,
            page=self.random.choice([1, 2, 5, 1_000]),
        )

    def _columns(self, table: str) -> list[tuple[Any, ...]]:
        return self.branches[0].replica.app.execute(f"PRAGMA table_info({table})").fetchall()


def _replica(path: Path, network: Network, code: str, clock: Clock) -> Replica:
    app = sqlite3.connect(path)
    app.executescript(SCHEMA)
    database = open_database(f"sqlite:///{path}")

    @event.listens_for(database.engine, "connect")
    def _opened(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")  # no power fails here

    home = str(path.parent)
    enrol.enrol(
        database, network, code=code, url="memory:", home=home, name=path.stem, names=[], clock=clock, rules=RULES
    )
    return Replica(database=database, remote=network, path=path, app=app, clock=clock)


def _state(branch: Branch) -> object:
    known = branch.replica.app.execute("SELECT position, recovering FROM backhaul_replica").fetchone()
    return known, branch.replica.states(), branch.rows()


@contextmanager
def _surviving() -> Iterator[None]:
    """A run that fails or dies is taken up by a later one."""
    with suppress(TryLater, Killed):
        yield


def _letters(fields: str | None) -> set[str]:
    note = json.loads(fields or "{}").get("note")
    return set(note["now"]) - set(note["was"]) if isinstance(note, dict) else set()


def _key(table: str, row: tuple[Any, ...]) -> str:
    return json.dumps(list(row[:2] if table == "line" else row[:1]), separators=(",", ":"))


def _wire(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _without(rows: Rows, held: set[tuple[str, str]]) -> Rows:
    return {table: {key: row for key, row in some.items() if (table, key) not in held} for table, some in rows.items()}
