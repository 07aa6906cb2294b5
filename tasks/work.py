"""backhaul.work: a function of the host, by its registered name."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from celery import Task

from backhaul.errors import DatabaseBusy, Stopped
from backhaul.work import ledger
from backhaul.work.functions import registered
from backhaul.work.run import Context
from config.settings import Settings
from tasks.base import named, ring_what_is_left, run_work, settings_of, told

RENEW_SECONDS = 15.0
LEASE_MS = 60_000


@named("backhaul.work")
def run_function(task: Task, work_id: str, generation: int) -> str:
    def body(context: Context) -> dict[str, Any] | None:
        import_modules(settings_of(task))
        function = registered(str(context.work.function))
        with _lease_renewed(context):
            return function(context.work.input, context)

    settled = run_work(task, work_id, generation, body)
    ring_what_is_left(task, settled)
    return told(settled)


def import_modules(settings: Settings) -> None:
    """Import the host's modules. The folder comes last on the path: its `config.py` must not stand before ours."""
    if str(settings.home) not in sys.path:
        sys.path.append(str(settings.home))
    for module in settings.work.modules:
        importlib.import_module(module)


@contextmanager
def _lease_renewed(context: Context) -> Iterator[None]:
    """A host's function may never call `check`; while it runs, its work is not to be taken for lost."""
    ended = threading.Event()
    thread = threading.Thread(target=_renew_until, args=(ended, context), name="backhaul-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _renew_until(ended: threading.Event, context: Context) -> None:
    with suppress(Stopped):  # not this run's any more: the settling will say so
        while not ended.wait(RENEW_SECONDS):
            with suppress(DatabaseBusy), context.database.writing() as connection:
                ledger.renew(connection, context.work, now=context.clock.now(), lease_ms=LEASE_MS)
