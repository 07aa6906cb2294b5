"""backhaul.work: a function of the host, by its registered name."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from celery import Task

from backhaul.errors import ConfigurationInvalid
from backhaul.work.functions import registered
from backhaul.work.run import Context
from config.settings import Settings
from tasks.base import named, ring_what_is_left, run_work, settings_of, told


@named("backhaul.work")
def run_function(task: Task, work_id: str, generation: int) -> str:
    def body(context: Context) -> dict[str, Any] | None:
        import_modules(settings_of(task))
        function = registered(str(context.work.function))
        return function(context.work.input, context)

    settled = run_work(task, work_id, generation, body)
    ring_what_is_left(task, settled)
    return told(settled)


def import_modules(settings: Settings) -> None:
    """Import the host's modules. Raises ConfigurationInvalid.

    The replica's folder comes last on the path: a `config.py` in it must not stand before ours.
    """
    if str(settings.home) not in sys.path:
        sys.path.append(str(settings.home))
    for module in settings.work.modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise ConfigurationInvalid(
                f"work.modules: {module} cannot be imported: {type(error).__name__}: {error}",
                hint=f"it is looked for on Python's path, and in {settings.home}",
            ) from error
