"""The journeys as a process of their own runs them: fresh connections to what is on disk, and nothing remembered."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from backhaul.attach import attach
from backhaul.bell import Queue
from backhaul.clock import SystemClock
from backhaul.database import Database, open_database
from backhaul.files import enqueue_upload
from backhaul.media import fetch, together, transfer
from backhaul.media.cache import Limits, evict
from backhaul.media.put import put
from backhaul.media.store import Store as MediaStore
from backhaul.media.tidy import tidy
from backhaul.media.uploads import Upload
from backhaul.remotes.tus import TusRemote
from backhaul.replica import conflicts, outbox, parked, pull, push, resolution
from backhaul.server import auth
from backhaul.server.batch import Batch
from backhaul.server.contents.disk import DiskStore
from backhaul.server.intake import Intake
from backhaul.server.memory import StoreRemote
from backhaul.server.settings import Settings
from backhaul.server.store import ServerDatabase, Store
from backhaul.wire import NewContent
from backhaul.work import ledger
from backhaul.work.beside import Beside
from backhaul.work.context import Context
from backhaul.work.ledger import Work
from backhaul.work.run import run as run_work
from tests.convergence.servers import SCOPE
from tests.replicas import MovedClock, Undisturbed

CLOCK = SystemClock()
BATCH = 2
PAGE = 2
CHUNK_BYTES = 64 * 2**10


def run(journey: str, job: dict[str, Any]) -> Any:
    """job: database (URL); server (URL of its database), replica, and op ids to give up; for an upload url, token and
    upload, for small ones url, token and when it is (now); for a download content and folder; for kept files file and
    folder; for files of rows home, folder and when it is (now). At the server, data, replica, scope and when it is; and
    upload and last (bytes in hexadecimal), or files."""
    with ExitStack() as stack:
        database = open_database(job["database"])
        stack.callback(database.close)
        return JOURNEYS[journey](database, job, stack)


def _push(database: Database, job: dict[str, Any], stack: ExitStack) -> Any:
    return push.push(database, _store(job, stack), clock=CLOCK, context=Undisturbed(), batch=BATCH, alone=True)


def _push_at_once(database: Database, job: dict[str, Any], stack: ExitStack) -> Any:
    return push.push(database, _store(job, stack), clock=CLOCK, context=Undisturbed(), alone=True)


def _pull(database: Database, job: dict[str, Any], stack: ExitStack) -> Any:
    return pull.pull(database, _store(job, stack), clock=CLOCK, context=Undisturbed(), limit=PAGE, most_held=1)


def _discard(database: Database, job: dict[str, Any], stack: ExitStack) -> Any:
    """What is still there of the ops that a person has looked at."""
    with database.reading() as connection:
        left = [row["op_id"] for row in outbox.parked(connection) if row["op_id"] in job["parked"]]
    return parked.discard(database, _store(job, stack), left) if left else 0


def _resolve(database: Database, job: dict[str, Any], stack: ExitStack) -> None:
    """Ours for the customers, theirs for the invoices."""
    with database.reading() as connection:
        found = [(number, conflicts.of_number(connection, number)) for number in conflicts.numbers(connection)]
    for number, entries in found:
        resolution.resolve(database, number, "mine" if not entries[0].roots else "theirs", now=CLOCK.now())


def _undo(database: Database, job: dict[str, Any], stack: ExitStack) -> None:
    with database.reading() as connection:
        numbers = conflicts.numbers(connection, open_only=False)
        found = [number for number in numbers if conflicts.of_number(connection, number)[0].state == "resolved"]
    for number in found:
        resolution.undo(database, number)


def _upload(database: Database, job: dict[str, Any], stack: ExitStack) -> Any:
    remote = TusRemote(job["url"], job["token"])
    stack.callback(remote.close)
    return transfer.upload(database, remote, job["upload"], clock=CLOCK, context=Undisturbed(), chunk_bytes=CHUNK_BYTES)


def _together(database: Database, job: dict[str, Any], stack: ExitStack) -> int:
    """Runs of uploads until none waits, each taking along what waits beside it; how many there were."""
    remote, clock, runs = TusRemote(job["url"], job["token"]), MovedClock(job["now"]), 0
    stack.callback(remote.close)

    def body(context: Context) -> dict[str, Any]:
        run = transfer.Transfer(
            database=database,
            remote=remote,
            clock=clock,
            context=context,
            chunk_bytes=CHUNK_BYTES,
            queue="media",
            worker="w",
            store=None,
        )
        return together.upload(run, context.id, Beside(context), order="old")

    with database.writing() as connection:
        ledger.recover(connection, clock.now())
    while waiting := _waiting(database, clock.now()):
        settled = run_work(
            database,
            waiting[0].id,
            waiting[0].generation,
            worker="w",
            queue="media",
            conditions=lambda _connection, _now: ({}, frozenset()),
            clock=clock,
            body=body,
        )
        assert settled.kind == "done", settled
        runs += 1
    return runs


def _waiting(database: Database, now: int) -> list[Work]:
    with database.reading() as connection:
        return ledger.due(connection, now, ring_again_ms=0, limit=100)


def _download(database: Database, job: dict[str, Any], stack: ExitStack) -> Any:
    remote = TusRemote(job["url"], job["token"])
    stack.callback(remote.close)
    given = {"clock": CLOCK, "context": Undisturbed(), "chunk_bytes": CHUNK_BYTES}
    return fetch.download(database, remote, job["content"], store=MediaStore(Path(job["folder"])), **given)


def _put(database: Database, job: dict[str, Any], stack: ExitStack) -> Any:
    made = put(database, job["file"], enqueue=_no_work, now=CLOCK.now(), store=MediaStore(Path(job["folder"])))
    _done()
    return made.sha256


def _attach(database: Database, job: dict[str, Any], stack: ExitStack) -> Any:
    return _look_at_files(database, job, transforming=False)


def _reduce(database: Database, job: dict[str, Any], stack: ExitStack) -> Any:
    return _look_at_files(database, job, transforming=True)


def _look_at_files(database: Database, job: dict[str, Any], *, transforming: bool) -> int:
    clock = MovedClock(job["now"])

    def enqueue(connection: Connection, upload: Upload, /, *, later: bool = False) -> None:
        enqueue_upload(connection, upload, [Queue(name="media")], requires=frozenset(), now=clock.now())

    given = {"store": MediaStore(Path(job["folder"])), "clock": clock, "context": Undisturbed()}
    done = attach(database, home=Path(job["home"]), enqueue=enqueue, transforming=transforming, **given)
    _done()
    return done.put


def _no_work(_connection: Connection, _upload: Upload) -> None:
    """The files of this journey are never sent."""


def _done() -> None:
    """A place to die at."""


def _tidy(database: Database, job: dict[str, Any], stack: ExitStack) -> Any:
    return tidy(database, MediaStore(Path(job["folder"]))).number


def _evict(database: Database, job: dict[str, Any], stack: ExitStack) -> Any:
    return evict(database, MediaStore(Path(job["folder"])), Limits(most=0, floor=0)).contents


def _complete(database: Database, job: dict[str, Any], stack: ExitStack) -> None:
    """The server takes the last byte of an upload in."""
    settings = Settings(data=Path(job["data"]))
    intake = Intake(DiskStore(settings.data / "media"), settings, database, MovedClock(job["now"]))
    replica = auth.Replica(id=job["replica"], scope=job["scope"])
    found = intake.find(replica, job["upload"])
    tail, _ = intake.open(found, None)
    tail.write(bytes.fromhex(job["last"]))
    found = intake.promise(found, tail)
    tail.close()
    intake.complete(replica, found)


def _take(database: Database, job: dict[str, Any], stack: ExitStack) -> None:
    """The server takes small contents in, of one message."""
    settings = Settings(data=Path(job["data"]))
    batch = Batch(DiskStore(settings.data / "media"), settings, database, MovedClock(job["now"]))
    files = [bytes.fromhex(file) for file in job["files"]]
    named = {"name": "photo.jpg", "media_type": "image/jpeg"}
    sent = [(NewContent(sha256=sha256(file).hexdigest(), size=len(file), **named), memoryview(file)) for file in files]
    batch.take(auth.Replica(id=job["replica"], scope=job["scope"]), sent)


def _store(job: dict[str, Any], stack: ExitStack) -> StoreRemote:
    database = ServerDatabase(open_database(job["server"]))
    stack.callback(database.close)
    return StoreRemote(Store(database), CLOCK, auth.Replica(id=job["replica"], scope=SCOPE))


JOURNEYS: dict[str, Callable[[Database, dict[str, Any], ExitStack], Any]] = {
    "push": _push,
    "fork": _push,
    "late": _pull,
    "restored": _pull,
    "refusal": _push,
    "unsendable": _push_at_once,
    "backfill": _push,
    "pull": _pull,
    "overtaken": _pull,
    "discard": _discard,
    "conflict": _push,
    "resolve": _resolve,
    "undo": _undo,
    "upload": _upload,
    "together": _together,
    "complete": _complete,
    "take": _take,
    "download": _download,
    "put": _put,
    "attach": _attach,
    "reduce": _reduce,
    "tidy": _tidy,
    "evict": _evict,
}
