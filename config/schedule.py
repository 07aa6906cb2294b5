"""Sync's standing work: push, pull and reconcile, each periodic, each by its own name."""

from __future__ import annotations

from sqlalchemy import Connection

from backhaul.work import ledger
from backhaul.work.constraints import place
from backhaul.work.request import WorkRequest
from config.queues import declared
from config.retry import policy
from config.settings import Settings

CONNECTED = frozenset({"connected"})
STANDING = ("push", "pull", "reconcile")


def ensure_standing(connection: Connection, settings: Settings, now: int) -> None:
    """Make the standing work, or bring it to what the settings say now; an unchanged one stays as it is."""
    queues = declared(settings)
    for name in STANDING:
        request = standing(settings, name)
        queue = place(queues, request.requires)
        ledger.enqueue_unique(connection, request, queue=queue.name, policy="update", now=now)


def standing(settings: Settings, name: str) -> WorkRequest:
    return WorkRequest(
        task=f"backhaul.{name}",
        id=name,
        name=name,
        requires=CONNECTED,
        interval_ms=getattr(settings.sync, f"{name}_every"),
        flex_ms=getattr(settings.sync, f"{name}_flex"),
        backoff=policy(settings, name),
    )
