"""The host's functions, each a Celery task of its own name, and of every name that it had before."""

from __future__ import annotations

import importlib
import sys

from celery import Celery, Task

from backhaul.errors import ConfigurationInvalid
from backhaul.work.context import Context
from backhaul.work.functions import all_registered, registered
from backhaul.work.run import Returned
from config.settings import Settings
from tasks.base import ring_what_is_left, run_work, told
from tasks.revoking import WorkTask


def register_functions(app: Celery, settings: Settings) -> None:
    """Import the host's modules, and make their functions tasks of this app. Raises ConfigurationInvalid."""
    import_modules(settings)
    for known in all_registered():
        for name in (known.name, *known.formerly):
            app.task(name=name, bind=True, base=WorkTask, lazy=False)(run_function)
    app.set_current()  # a module that makes an app of its own makes it the current one
    app.set_default()


def run_function(task: Task, work_id: str, generation: int) -> str:
    settled = run_work(task, work_id, generation, call_function)
    ring_what_is_left(task, settled)
    return told(settled)


def call_function(context: Context) -> Returned:
    """Raises WorkerUnknown."""
    return registered(context.work.task).function(context)


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
