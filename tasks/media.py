"""backhaul.upload and backhaul.download: one file, by the worker of its queue alone. backhaul.attach and
backhaul.transform: the files that rows name."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from celery import Task
from sqlalchemy import Connection

from backhaul import attach
from backhaul.bell import Ring
from backhaul.files import enqueue_upload
from backhaul.media import fetch, transfer
from backhaul.media.uploads import Upload
from backhaul.work.context import Context
from config.media import store_of
from config.queues import declared, upload_requires
from tasks import process
from tasks.base import named, queue_of, ring, ring_what_is_left, run_work, settings_of, told, worker_of

LATER_MS = 60_000  # what was made of a file is on its way before the file itself


@named("backhaul.upload")
def upload_file(task: Task, work_id: str, generation: int) -> str:
    def body(context: Context) -> dict[str, Any]:
        settings = settings_of(task)
        return transfer.upload(
            context.database,
            process.media_remote(settings),
            work_id,
            clock=context.clock,
            context=context,
            chunk_bytes=settings.media.chunk,
            queue=queue_of(task),
            worker=worker_of(task),
            store=store_of(settings),
        )

    settled = run_work(task, work_id, generation, body)
    ring_what_is_left(task, settled)
    return told(settled)


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
