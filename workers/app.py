"""The Celery app of the replica in BACKHAUL_HOME, or in the current folder:

celery -A workers.app worker            every declared queue; -Q sync,media for some of them
celery -A workers.app beat
celery -A workers.app flower
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, NoReturn

from celery import Celery
from celery.exceptions import CPendingDeprecationWarning
from celery.signals import beat_init, task_unknown, worker_init, worker_shutdown, worker_shutting_down

from backhaul.errors import BackhaulError
from config.celery import make_app
from config.loading import load
from tasks import ending
from tasks.functions import register_functions
from workers import panel  # noqa: F401 - what `celery inspect` can ask for
from workers.gate import Gate
from workers.replica import WorkerReplica, replica_of
from workers.unknown import fail_unknown

# At every loss of the broker Celery warns that runs go on by default; that is what we set, on purpose.
warnings.simplefilter("ignore", CPendingDeprecationWarning)


def _made() -> Celery:
    settings = load()
    app = make_app(settings)
    app.replica = WorkerReplica(settings)
    app.steps["consumer"].add(Gate)
    return app


def _give_up(error: BackhaulError) -> NoReturn:
    hint = f" ({error.hint})" if error.hint else ""
    print(f"backhaul: {error}{hint}", file=sys.stderr)  # noqa: T201 - a program that does not start says why
    raise SystemExit(error.exit_status)


def _begin(**_: Any) -> None:
    try:
        register_functions(app, replica_of(app).settings)
        replica_of(app).begin()
    except BackhaulError as error:
        _give_up(error)


def _ending(**_: Any) -> None:
    """In the signal's handler: what runs is asked to stop at once, by a byte."""
    ending.begin()


def _end(**_: Any) -> None:
    replica_of(app).end()


try:
    app = _made()
except BackhaulError as error:
    _give_up(error)
worker_init.connect(_begin)
beat_init.connect(_begin)
worker_shutting_down.connect(_ending)
worker_shutdown.connect(_end)
task_unknown.connect(fail_unknown)
