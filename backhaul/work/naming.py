"""What runs a host's work: a worker function, or a plain Celery task, by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backhaul.errors import Misused
from backhaul.work.functions import OURS, Function, name_of
from backhaul.work.request import CELERY_TASK, is_word


def arguments(args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The input of a plain Celery task."""
    return {"args": list(args), "kwargs": dict(kwargs or {})}


def host_task(worker: Function | str, *, plain: bool) -> tuple[str, str | None]:
    """The task and the function of a row. plain: the worker is the name of a plain Celery task, which Celery lets be
    any text. Raises Misused for a name that is none, or that is ours."""
    name = worker if plain else name_of(worker)
    if not is_word(name):
        raise Misused(f"{name!r} is no name of a Celery task", hint="OneTimeWork.of_task('shop.send')")
    if str(name).startswith(OURS):
        raise Misused(f"{name!r} is Backhaul's own work", hint="backhaul push, pull and media start it")
    return (CELERY_TASK, str(name)) if plain else (str(name), None)
