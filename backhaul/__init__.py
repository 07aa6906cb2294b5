"""Backhaul: background data sync for Python programs, on Celery. A host app imports this package alone."""

from backhaul.client import Backhaul, Status
from backhaul.errors import BackhaulError
from backhaul.work.request import WorkRequest

__all__ = ["Backhaul", "BackhaulError", "Status", "WorkRequest"]
