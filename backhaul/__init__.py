"""Backhaul: background data sync for Python programs, on Celery. A host app imports this package alone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backhaul.client import Backhaul, Status
    from backhaul.errors import BackhaulError
    from backhaul.work.request import WorkRequest

__all__ = ["Backhaul", "BackhaulError", "Status", "WorkRequest"]

# Imported when first asked for (PEP 562): a command, or a child of a worker, that needs one module pays for
# that one, and not for all that a client is made of.
_HOMES = {
    "Backhaul": "backhaul.client",
    "BackhaulError": "backhaul.errors",
    "Status": "backhaul.client",
    "WorkRequest": "backhaul.work.request",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
