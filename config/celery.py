"""Celery, set up for a replica: messages that carry an id and nothing else, and that may all be lost.

Every delivery may be double, late or never come; the claim in the ledger decides. So nothing here tries to make
messages durable beyond what is cheap, and nothing makes a publisher wait.
"""

from __future__ import annotations

from typing import Any

from celery import Celery

from config.broker import broker_url
from config.queues import celery_queues, declared
from config.settings import Settings

VISIBILITY_SECONDS = 3_600  # a run ends within ten minutes; what is redelivered later than that is only a duplicate
PUBLISH_SECONDS = 2.0  # how long a publisher may hang on a broker that does not answer
TASKS = ("tasks.sync", "tasks.media", "tasks.plain")


def make_app(settings: Settings, *, current: bool = True) -> Celery:
    """current: False in a host's process, which may have a Celery app of its own."""
    url = broker_url(settings)
    app = Celery("backhaul", broker=url, set_as_current=current)
    app.conf.update(_configuration(settings, url))
    app.settings = settings
    app.declared_queues = declared(settings)
    return app


def _configuration(settings: Settings, url: str) -> dict[str, Any]:
    return _messages() | _publishing(url) | _working() | _queues(settings)


def _messages() -> dict[str, Any]:
    return {
        "task_serializer": "json",
        "accept_content": ["json"],
        "event_serializer": "json",
        "task_ignore_result": True,
        "task_send_sent_event": True,
        "worker_send_task_events": True,
        "enable_utc": True,
    }


def _publishing(url: str) -> dict[str, Any]:
    return {
        "task_publish_retry": False,
        "broker_connection_timeout": PUBLISH_SECONDS,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": _redis_transport() if "redis" in url.split(":")[0] else {},
    }


def _redis_transport() -> dict[str, Any]:
    return {
        "visibility_timeout": VISIBILITY_SECONDS,
        "socket_connect_timeout": PUBLISH_SECONDS,
        "socket_timeout": 2 * PUBLISH_SECONDS,  # longer than the second that a waiting worker blocks
        "socket_keepalive": True,
    }


def _working() -> dict[str, Any]:
    return {
        "imports": TASKS,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        # A run goes on when the broker is lost: it is bound to the ledger, not to its message.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        "worker_hijack_root_logger": False,
        "worker_consumer": "workers.consumer:Consumer",
        "beat_scheduler": "workers.beat:LedgerScheduler",
    }


def _queues(settings: Settings) -> dict[str, Any]:
    queues = celery_queues(settings)
    return {
        "task_queues": queues,
        "task_default_queue": queues[0].name,
        "task_default_exchange": "",
        "task_default_routing_key": queues[0].name,
        "task_create_missing_queues": False,
    }
