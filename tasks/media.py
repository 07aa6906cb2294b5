"""backhaul.upload: one file, by the worker of its queue alone."""

from __future__ import annotations

from typing import Any

from celery import Task

from backhaul.media import transfer
from backhaul.work.run import Context
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
        )

    settled = run_work(task, work_id, generation, body)
    ring_what_is_left(task, settled)
    return told(settled)
