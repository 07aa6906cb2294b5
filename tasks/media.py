"""backhaul.upload and backhaul.download: one file, by the worker of its queue alone."""

from __future__ import annotations

from typing import Any

from celery import Task

from backhaul.media import fetch, transfer
from backhaul.work.context import Context
from config.media import store_of
from tasks import process
from tasks.base import named, queue_of, ring_what_is_left, run_work, settings_of, told, worker_of


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
