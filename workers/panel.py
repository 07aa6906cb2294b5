"""What `celery inspect` can ask a worker for: `celery -A workers.app inspect backhaul_gate`."""

from __future__ import annotations

from typing import Any

from celery.worker.control import inspect_command


@inspect_command()  # type: ignore[untyped-decorator]  # Celery ships no types
def backhaul_gate(state: Any) -> dict[str, Any]:
    """Which queues are open here, since when, why the others are closed, and which are consumed from."""
    shown: dict[str, Any] = state.consumer.gate.shown()
    return shown
