"""backhaul.upload and backhaul.download: files, by the workers of their queues alone. backhaul.attach and
backhaul.transform: the files that rows name.

A message of an upload says that one waits. Those that come before it are run first, each as work of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from celery import Task
from sqlalchemy import Connection

from backhaul import attach
from backhaul.bell import Ring
from backhaul.clock import SystemClock
from backhaul.errors import DatabaseBusy, LinkLimited
from backhaul.files import enqueue_upload
from backhaul.media import fetch, together, transfer, turns
from backhaul.media.uploads import Upload
from backhaul.work.beside import Beside
from backhaul.work.context import Context
from backhaul.work.result import Result
from config.machine import conditions_of
from config.media import most_bytes, store_of
from config.queues import declared, upload_requires
from tasks import process
from tasks.base import named, queue_of, ring, ring_what_is_left, run_work, settings_of, told, worker_of

LATER_MS = 60_000  # what was made of a file is on its way before the file itself

LET_AHEAD_MS = 5 * 60_000
LINK_AGAIN_MS = 60_000


@named("backhaul.upload")
def upload_file(task: Task, work_id: str, generation: int) -> str:
    for ahead, of_generation in _ahead(task, work_id):
        first = run_work(task, ahead, of_generation, partial(_upload, task))
        ring_what_is_left(task, first)
        if first.kind not in ("done", "failed"):
            break
    settled = run_work(task, work_id, generation, partial(_upload, task))
    ring_what_is_left(task, settled)
    if settled.kind == "not-claimed" and settled.work is not None and settled.work.state == "SUCCEEDED":
        return "done"  # by a run that took it along, of which no message spoke
    return told(settled)


def _upload(task: Task, context: Context) -> Result | dict[str, Any]:
    settings = settings_of(task)
    run = transfer.Transfer(
        database=context.database,
        remote=process.media_remote(settings),
        clock=context.clock,
        context=context,
        chunk_bytes=settings.media.chunk,
        queue=queue_of(task),
        worker=worker_of(task),
        store=store_of(settings),
        most_bytes=partial(_most_bytes, task),
    )
    try:
        return together.upload(run, context.id, Beside(context), order=settings.media.order)
    except LinkLimited as error:
        return Result(kind="retry", reason=f"{error}; {error.hint}", after_ms=LINK_AGAIN_MS, exactly=True)


def _most_bytes(task: Task) -> int | None:
    """Of a file that this machine's link may carry now."""
    settings = settings_of(task)
    if not settings.media.max_bytes:
        return None
    conditions = conditions_of(settings, worker_name=worker_of(task))
    with process.database(settings).reading() as connection:
        return most_bytes(settings, conditions(connection, SystemClock().now())[0])


def _ahead(task: Task, upload_id: str) -> Iterator[tuple[str, int]]:
    """The uploads whose turn it is before this one's, with the generations of their works; after some minutes it is its
    turn, whatever waits."""
    settings, queue, clock = settings_of(task), queue_of(task), SystemClock()
    until = clock.now() + LET_AHEAD_MS
    while queue is not None and clock.now() < until:
        try:
            limit = _most_bytes(task)
            with process.database(settings).reading() as connection:
                first = turns.before(
                    connection,
                    upload_id,
                    queue=queue,
                    now=clock.now(),
                    order=settings.media.order,
                    most_bytes=limit,
                )
        except DatabaseBusy:
            return
        if first is None:
            return
        yield first


@named("backhaul.attach")
def attach_files(task: Task, work_id: str, generation: int) -> str:
    return _attach(task, work_id, generation, transforming=False)


@named("backhaul.transform")
def transform_files(task: Task, work_id: str, generation: int) -> str:
    return _attach(task, work_id, generation, transforming=True)


def _attach(task: Task, work_id: str, generation: int, *, transforming: bool) -> str:
    rings: list[Ring] = []

    def body(context: Context) -> dict[str, Any]:
        settings = settings_of(task)
        queues, requires = declared(settings), upload_requires(settings)

        def enqueue(connection: Connection, upload: Upload, /, *, later: bool = False) -> None:
            now, delay = context.clock.now(), LATER_MS if later else 0
            work = enqueue_upload(connection, upload, queues, requires=requires, now=now, delay_ms=delay)
            rings.extend(() if later else (work.ring,))

        done = attach.attach(
            context.database,
            home=settings.home,
            store=store_of(settings),
            keep=settings.media.keep,
            enqueue=enqueue,
            clock=context.clock,
            context=context,
            transforming=transforming,
        )
        return asdict(done)

    settled = run_work(task, work_id, generation, body)
    ring(task.app, *rings)
    ring_what_is_left(task, settled)
    return told(settled)


@named("backhaul.download")
def download_content(task: Task, work_id: str, generation: int) -> str:
    def body(context: Context) -> dict[str, Any]:
        settings = settings_of(task)
        return fetch.download(
            context.database,
            process.media_remote(settings),
            str(context.input["sha256"]),
            clock=context.clock,
            context=context,
            store=store_of(settings),
            chunk_bytes=settings.media.chunk,
        )

    settled = run_work(task, work_id, generation, body)
    ring_what_is_left(task, settled)
    return told(settled)
