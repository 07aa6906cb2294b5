"""Flower takes the gate's event as it takes any other: it is counted, by worker, and breaks nothing."""

from __future__ import annotations

import time
from typing import Any

from flower.events import EventsState
from prometheus_client import REGISTRY


def event(kind: str, **fields: Any) -> dict[str, Any]:
    now = time.time()
    head = {"hostname": "one@here", "timestamp": now, "local_received": now, "clock": 1, "pid": 1, "utcoffset": 0}
    return {"type": kind, **head, **fields}


def test_flower_counts_what_the_gate_tells_beside_what_celery_does() -> None:
    state = EventsState(max_tasks_in_memory=10)
    state.event(event("worker-online", freq=2, sw_ident="py-celery", sw_ver="5.7", sw_sys="Linux"))
    for is_open in (False, True):
        queues = [{"name": "media", "open": is_open, "reason": "", "since": "2026-11-29T10:00:00Z"}]
        state.event(event("backhaul-gate", queues=queues))
    state.event(event("task-received", uuid="push.1", name="backhaul.push"))
    assert state.counter["one@here"]["backhaul-gate"] == 2
    assert state.workers["one@here"].alive
    assert state.tasks["push.1"].name == "backhaul.push"
    online = REGISTRY.get_sample_value("flower_worker_online", {"worker": "one@here"})
    assert online == 1
