"""What the host is told of when a function of its has raised, or could not be begun.

    from backhaul.work import on_exception

    @on_exception
    def tell(work: Work, error: Exception) -> None: ...

It stands in a module of `[work] modules`, and is called in the worker's process, after the row is settled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from backhaul.telemetry import emit
from backhaul.work.row import Work

Hook = Callable[[Work, Exception], None]
Given = TypeVar("Given", bound=Hook)

_hooks: dict[tuple[str, str], Hook] = {}


def on_exception(hook: Given) -> Given:
    """Have this called with every work that failed by an exception, and the exception: what the function raised;
    WorkerUnknown when there is no function of its name; Misused when its input or its output could not be had.
    Another try that is asked for (TryLater) is none. A hook that raises is told in the log, and no more.
    """
    _hooks[hook.__module__, hook.__qualname__] = hook
    return hook


def tell(work: Work, error: Exception) -> None:
    for hook in list(_hooks.values()):
        try:
            hook(work, error)
        except Exception as raised:
            emit("hook.failed", hook=f"{hook.__module__}.{hook.__qualname__}", error=type(raised).__name__)
