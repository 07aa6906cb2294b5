"""How long each kind of work waits after a failed try."""

from __future__ import annotations

from backhaul.backoff import Backoff
from config.settings import Settings
from config.sync_sections import Retry


def policy(settings: Settings, kind: str) -> Backoff:
    """kind: push, pull, reconcile or upload."""
    retry: Retry = getattr(settings.retry, kind)
    return Backoff(policy=retry.policy, initial_ms=retry.initial, most_ms=retry.most, jitter=retry.jitter)
