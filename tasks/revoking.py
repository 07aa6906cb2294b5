"""REVOKED, for work that was cancelled: Celery itself says it only of messages that it was told to drop."""

from __future__ import annotations

from typing import Any

from celery import Task
from celery.exceptions import Ignore
from celery.worker.request import Request


class Revoked(Ignore):  # type: ignore[misc]  # Celery ships no types
    """The work of this message is cancelled; expired: it has not begun in time."""

    def __init__(self, reason: str, expired: bool = False) -> None:
        super().__init__(reason, expired)
        self.reason = reason
        self.expired = expired


class RevocableRequest(Request):  # type: ignore[misc]
    """In the worker's main process, which sends the events: so this one comes after the others of its message."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        error = exc_info.exception
        revoked = getattr(error, "exc", error)
        if isinstance(revoked, Revoked):
            return self._announce_revoked(revoked.reason, False, None, revoked.expired)
        return super().on_failure(exc_info, send_failed_event, return_ok)


class WorkTask(Task):  # type: ignore[misc]
    """The kind of every task that runs work."""

    abstract = True
    Request = RevocableRequest
