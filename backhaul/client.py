"""What a host app holds: `Backhaul(engine)`.

    engine = create_engine("sqlite:///shop.db")
    backhaul = Backhaul(engine)          # the app writes as before, with the engine, an ORM, or anything else
    backhaul.media.put("photo.jpg")

The app's database must be a replica already (`backhaul init`). Nothing here waits for a worker, a broker or a server.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Engine

from backhaul.bell import Bell, Ring, open_bell
from backhaul.clock import Clock, SystemClock
from backhaul.conflicts import Conflicts
from backhaul.database import Database, open_database, sqlite_file
from backhaul.eager import fetching
from backhaul.errors import BackhaulError
from backhaul.files import Media
from backhaul.media import uploads
from backhaul.remotes import endpoint, pace
from backhaul.remotes.base import Remote
from backhaul.remotes.endpoint import Endpoint
from backhaul.remotes.pace import Pace
from backhaul.replica import aside, checkpoint, conflicts, mending, outbox, parked, refill, remap
from backhaul.replica.hook import Hook
from backhaul.replica.remap import Remapped
from backhaul.replica.why import why_record
from backhaul.session import Run, Session
from backhaul.work import ledger
from backhaul.work.changes import noting
from backhaul.work.metering import meter_of
from backhaul.work.node_conditions import NodeConditions
from backhaul.work.works import Works

SETTINGS = "backhaul.toml"


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far this replica is. Times: milliseconds since 1970. work: how many are in each state.

    held: how many of the pending changes wait for a file (docs/media.md).
    clock_offset_ms: the server's clock minus this machine's.
    aside: how many records of the server the app's own schema refuses for now.
    pace: how much at once and how often, where that is not, or was not, the usual, each with its reason and since when.
    held_until, held_because: the server asked to be left alone until then; None when it has not.
    """

    replica: str
    scope: str
    remote: str
    pending: int
    held: int
    parked: int
    conflicts: int
    aside: int
    oldest_pending_seconds: float | None
    last_push_at: int | None
    last_pull_at: int | None
    position: int
    clock_offset_ms: int
    held_until: int | None
    held_because: str | None
    work: dict[str, int]
    media: dict[str, int]
    pace: list[Pace]


class Backhaul:
    """A replica, seen from the app. Raises NotInitialised when the engine's database is none.

    engine: the app's own; its transactions become groups, and a commit rings the workers. bell, clock: for tests.
    """

    def __init__(self, engine: Engine, *, bell: Bell | None = None, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._database = open_database(engine.url)
        with self._database.reading() as connection:
            known = checkpoint.read(connection)
        self._bell = bell or open_bell(_home(engine, Path(known.home)))
        self.media = Media(self._database, self._bell, self._clock)
        self.conflicts = Conflicts(self._database, self._bell, self._clock)
        self.parked = Parked(self._database, self._bell, self._clock)
        self._hook = Hook(engine, self._wrote)
        self.conditions = NodeConditions(self._database, self._bell, self._clock)
        self.work = Works(self._database, self._bell, self._clock, self._hook.after_commit)

    def status(self) -> Status:
        return read_status(self._database, self._clock.now())

    def why(self, table: str, key: list[Any]) -> str:
        """Why this record is not synced yet, in one line. key: its primary key's values, in order."""
        with self._database.reading() as connection:
            return why_record(connection, table, key, now=self._clock.now())

    def session(self, run: Run | None = None) -> Session:
        """Signed in to the server, to push and pull in this thread: `with client.session() as session: ...`.

        run: a worker function's context: then the session stops when the work is to stop, and says its progress.
        """
        meter = meter_of(self._database, self._clock, self._bell.node)
        signed_in = partial(self._bell.remote, Endpoint(self._database, self._clock, meter))
        return Session(
            self._database,
            self._clock,
            signed_in,
            wake_push=self._wake_push,
            run=run,
            renew=self._renew,
            arriving=noting(self._clock),
            brought=fetching(self._bell.media, self._bell.queues, self._clock),
        )

    def close(self) -> None:
        """Let go of the engine (it captures on), and of the bell."""
        self._hook.remove()
        self._bell.close()
        self._database.close()

    def _wrote(self) -> None:
        self._bell.ring_for("push", self._look_for_push)

    def _wake_push(self) -> None:
        with self._database.writing() as connection:
            woken = ledger.wake(connection, "push", self._clock.now())
        if woken is not None:
            self._bell.ring(woken.ring)

    def _renew(self, remote: Remote) -> bool:
        return self._bell.renew(self._database, remote)

    def _look_for_push(self) -> Ring | None:
        """On the bell's thread: what Flower is to call this run can only be read when the message is sent. And numbers
        for the app's next rows are begun in time, also while the server is away."""
        with suppress(BackhaulError):
            refill.turn(self._database, now=self._clock.now())
        try:
            with self._database.reading() as connection:
                work = ledger.get(connection, "push")
        except BackhaulError:
            return None
        return work.ring if work is not None and work.state == "ENQUEUED" else None


def _home(engine: Engine, known: Path) -> Path:
    """The replica's folder: the database's, if the settings lie there (folders get moved); else as `init` knew it."""
    file = sqlite_file(engine.url)
    beside = file.absolute().parent if file is not None else known
    return beside if (beside / SETTINGS).exists() else known


class Parked:
    """The changes that were refused for good, each with its reason, and what a person does about them.

    ops: as `list` names them; with none named, all. retry, edit, remap: how many changes go out again.
    """

    def __init__(self, database: Database, bell: Bell, clock: Clock) -> None:
        self._database = database
        self._bell = bell
        self._clock = clock

    def list(self) -> builtins.list[dict[str, Any]]:
        """Oldest first: op, group, table, key, kind, fields, captured_at, reason, detail."""
        with self._database.reading() as connection:
            return [parked.exported(row) for row in outbox.parked(connection)]

    def retry(self, *ops: str) -> int:
        """Send them again, after what was wrong has been put right. Raises Unknown."""
        return self._ring(parked.retry(self._database, ops, now=self._clock.now()))

    def edit(self, op: str, fields: Mapping[str, Any]) -> int:
        """Have it say these fields, here too, and send it again. Raises Unknown, Misused."""
        return self._ring(mending.edit(self._database, op, fields, now=self._clock.now()))

    def discard(self, *ops: str) -> int:
        """Give them up: their records become what the server has. Raises Unknown, TryLater, Refused."""
        with closing(self._bell.remote()) as remote:
            return parked.discard(self._database, remote, ops)

    def remap(self, *ops: str) -> builtins.list[Remapped]:
        """Give the rows whose key is taken other keys, and send them. Raises Unknown, Misused, TryLater, Refused."""
        with closing(self._bell.remote()) as remote:
            done = remap.remap(self._database, remote, ops, now=self._clock.now())
        self._ring(len(done))
        return done

    def export(self, file: str | Path) -> int:
        """Write everything about every parked change, as JSON; returns how many there are."""
        rows = self.list()
        Path(file).write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n")
        return len(rows)

    def _ring(self, number: int) -> int:
        if number:
            with self._database.writing() as connection:
                woken = ledger.wake(connection, "push", self._clock.now(), force=True)
            if woken is not None:
                self._bell.ring(woken.ring)
        return number


def read_status(database: Database, now: int) -> Status:
    with database.reading() as connection:
        known = checkpoint.read(connection)
        counts = outbox.counts(connection)
        oldest = counts.oldest_pending_at
        held = endpoint.held(connection, now)
        return Status(
            replica=known.replica,
            scope=known.scope,
            remote=known.remote,
            pending=counts.pending,
            held=counts.held,
            parked=counts.parked,
            conflicts=conflicts.count(connection),
            aside=aside.count(connection),
            oldest_pending_seconds=None if oldest is None else max(0.0, (now - oldest) / 1000),
            last_push_at=known.last_push_at,
            last_pull_at=known.last_pull_at,
            position=known.position,
            clock_offset_ms=known.clock_offset_ms,
            held_until=held.until if held else None,
            held_because=held.because if held else None,
            work={str(state): number for state, number in ledger.counts(connection).items()},
            media={str(state): number for state, number in uploads.counts(connection).items()},
            pace=pace.decisions(connection),
        )
