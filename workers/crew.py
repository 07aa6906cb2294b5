"""The crew of a replica: which processes `up` starts, and with which commands.

Celery is started in `.backhaul`, not beside backhaul.toml: it looks for modules where it stands, and an app's own
`config.py` would be taken for ours.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from backhaul.errors import WorkUnplaceable
from backhaul.work.placing import place
from config.queues import UPLOAD, declared, upload_requires
from config.schedule import CONNECTED
from config.settings import Settings
from workers.supervisor import Child

WITH_SYNC = ("maintenance", "background")  # of the queues that every replica has
NOT_IN_A_FILE = re.compile(r"[^\w.-]")  # a worker's log is called after it
PROCESSES = 2  # of a worker, where neither backhaul.toml nor the command line says it


@dataclass(frozen=True, kw_only=True)
class WorkerOf:
    """One worker process and the queues that it serves."""

    name: str
    queues: Sequence[str]
    concurrency: int


def workers_of(settings: Settings, concurrency: int | None = None) -> list[WorkerOf]:
    """Sync with what else every replica has, media by itself (a long upload never delays data), and all other queues
    together; a queue that states its concurrency has a worker of its own, of its own name, for it is that queue's."""
    queues = declared(settings)
    names = [queue.name for queue in queues]
    sync = place(queues, CONNECTED, "backhaul.push").name
    media = _queue_of_uploads(settings)
    groups: dict[str, list[str]] = {"sync": [sync], "media": [], "work": []}
    for name in names:
        if name != sync:
            groups[_group(name, media)].append(name)
    return [
        WorkerOf(name=group, queues=served, concurrency=concurrency or stated or PROCESSES)
        for group, served, stated in _divided(settings, groups)
    ]


def worker_child(settings: Settings, worker: WorkerOf) -> Child:
    command = ["worker", "-n", f"{worker.name}@%h", "-Q", ",".join(worker.queues), "-c", str(worker.concurrency)]
    return _celery(settings, worker.name, [*command, "--without-mingle", "--without-gossip", "--loglevel", "INFO"])


def beat_child(settings: Settings) -> Child:
    return _celery(settings, "beat", ["beat", "--loglevel", "INFO"])


def flower_child(settings: Settings, port: int) -> Child:
    return _celery(settings, "flower", ["flower", "--address=127.0.0.1", f"--port={port}"])


def server_child(settings: Settings, port: int) -> Child:
    data = settings.state / "server"
    command = ["-m", "workers.cli", "serve", "--data", str(data), "--host", "127.0.0.1", "--port", str(port)]
    return _child(settings, "server", command)


def _queue_of_uploads(settings: Settings) -> str:
    """Raises WorkUnplaceable, naming the setting that demands what no queue has."""
    try:
        return place(declared(settings), upload_requires(settings), UPLOAD).name
    except WorkUnplaceable as error:
        hint = f"{error.hint}, or take from [media] requires what files need not wait for"
        raise WorkUnplaceable(f"uploads: {error}", hint=hint) from error


def _group(name: str, media: str) -> str:
    return "media" if name == media else "sync" if name in WITH_SYNC else "work"


def _divided(settings: Settings, groups: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, list[str], int | None]]:
    """The queues of each worker, and what one of its own states. The queue that a group is called after keeps the name
    for itself, if it has a worker of its own."""
    for group, names in groups.items():
        stated = {name: number for name in names if (number := settings.queues[name].concurrency) is not None}
        shared = [name for name in names if name not in stated]
        if shared:
            yield f"{group}-others" if group in stated else group, shared, None
        for name, number in stated.items():
            yield group if name == group else f"{group}-{NOT_IN_A_FILE.sub('_', name)}", [name], number


def _celery(settings: Settings, name: str, arguments: Sequence[str]) -> Child:
    return _child(settings, name, ["-m", "celery", "-A", "workers.app", *arguments])


def _child(settings: Settings, name: str, arguments: Sequence[str]) -> Child:
    return Child(
        name=name,
        command=[sys.executable, *arguments],
        folder=settings.state,
        log=settings.state / "logs" / f"{name}.log",
        env={"BACKHAUL_HOME": str(settings.home), "PYTHONUNBUFFERED": "1"},
    )
