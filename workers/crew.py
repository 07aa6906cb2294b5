"""The crew of a replica: which processes `up` starts, and with which commands.

Celery is started in `.backhaul`, not beside backhaul.toml: it looks for modules where it stands, and an app's own
`config.py` would be taken for ours.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from backhaul.work.constraints import place
from config.queues import declared
from config.schedule import CONNECTED
from config.settings import Settings
from workers.supervisor import Child

MAINTENANCE = "maintenance"
PROCESSES = 2  # of a worker, where neither backhaul.toml nor the command line says it


@dataclass(frozen=True, kw_only=True)
class WorkerOf:
    """One worker process and the queues that it serves."""

    name: str
    queues: Sequence[str]
    concurrency: int


def workers_of(settings: Settings, concurrency: int | None = None) -> list[WorkerOf]:
    """Sync with maintenance, media by itself (a long upload never delays data), and all other queues together."""
    queues = declared(settings)
    names = [queue.name for queue in queues]
    sync = place(queues, CONNECTED).name
    media = place(queues, frozenset(settings.media.requires)).name
    groups: dict[str, list[str]] = {"sync": [sync], "media": [], "work": []}
    for name in names:
        if name != sync:
            group = "media" if name == media else "sync" if name == MAINTENANCE else "work"
            groups[group].append(name)
    return [
        WorkerOf(name=group, queues=served, concurrency=concurrency or _concurrency(settings, served))
        for group, served in groups.items()
        if served
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


def _concurrency(settings: Settings, served: Sequence[str]) -> int:
    said = [settings.queues[name].concurrency for name in served]
    return max((number for number in said if number is not None), default=PROCESSES)


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
