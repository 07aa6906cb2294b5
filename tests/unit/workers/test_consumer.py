"""What Celery's consumer does again and again, and what ends its waiting."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.signals import worker_shutting_down
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.asynchronous import Hub

from config.celery import make_app
from config.loading import load
from tests.services import redis
from workers.consumer import HEARTBEAT_SECONDS, LEAST_SECONDS, Consumer, Unhurried, _pace
from workers.doorbell import BRPOP_SECONDS, Doorbell
from workers.gate import Gate

SETTINGS = """
[replica]
database = "sqlite:///shop.db"
[broker]
url = "{url}"
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celery]:
    home = tmp_path_factory.mktemp("home")
    with redis() as url:
        (home / "backhaul.toml").write_text(SETTINGS.format(url=url))
        app = make_app(load(home, initialised=False), current=False)
        yield app
        app.close()


def soonest(hub: Hub) -> float:
    return min(waiting.eta for waiting in hub.timer._queue) - time.monotonic()


def test_nothing_that_the_transport_repeats_is_due_soon(app: Celery) -> None:
    connection = app.connection_for_read()
    as_it_is, hub = Hub(), Hub()
    connection.transport.register_with_event_loop(connection.connection, as_it_is)
    assert soonest(as_it_is) <= 1, "else none of this is needed any more"
    connection.transport.register_with_event_loop(connection.connection, Unhurried(hub, LEAST_SECONDS))
    assert soonest(hub) > LEAST_SECONDS - 5
    connection.close()


def test_workers_have_this_consumer_without_gossip_and_with_few_heartbeats(app: Celery) -> None:
    assert app.conf.worker_consumer == f"{Consumer.__module__}:{Consumer.__name__}"
    assert _pace({"heartbeat_interval": None}) == {"without_gossip": True, "heartbeat_interval": HEARTBEAT_SECONDS}
    assert _pace({"heartbeat_interval": 2})["heartbeat_interval"] == 2


def test_a_ring_ends_the_waiting_for_messages(app: Celery) -> None:
    connection, doorbell = app.connection_for_read(), Doorbell(app)
    channel = connection.default_channel
    doorbell.hang(channel)
    assert channel.brpop_timeout == BRPOP_SECONDS
    begin_to_wait(connection)
    doorbell.ring()
    connection.drain_events(timeout=BRPOP_SECONDS - 1)  # it would raise
    doorbell.take_down()
    doorbell.end()
    connection.close()


def test_a_channel_is_closed_without_waiting_for_its_messages(app: Celery) -> None:
    """Or it fails: the socket has less patience."""
    assert app.conf.broker_transport_options["socket_timeout"] < BRPOP_SECONDS
    connection, doorbell = app.connection_for_read(), Doorbell(app)
    doorbell.hang(connection.default_channel)
    begin_to_wait(connection)
    doorbell.take_down(last_ring=True)
    connection.default_channel.close()
    assert not doorbell._leaving, "the bell was heard"
    doorbell.end()
    connection.close()


def begin_to_wait(connection: object) -> None:
    with suppress(TimeoutError):
        connection.drain_events(timeout=0.05)  # type: ignore[attr-defined]


def test_what_is_waited_for_is_named_anew_when_queues_are_added_and_cancelled_by_remote_control(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    for name in ("add_task_queue", "cancel_task_queue"):
        monkeypatch.setattr(CeleryConsumer, name, lambda _, queue: done.append(queue))
    consumer = object.__new__(Consumer)
    consumer.gate = SimpleNamespace(call_away=lambda: done.append("away"))
    consumer.add_task_queue("one")
    consumer.cancel_task_queue("two")
    assert done == ["one", "away", "two", "away"]


def test_a_signal_that_ends_the_worker_wakes_its_loop() -> None:
    """Python goes on sleeping after the handler."""
    gate = Gate(SimpleNamespace())
    gate._pipe = read, write = os.pipe()
    os.set_blocking(read, False)
    worker_shutting_down.send(sender="one@here", sig="TERM", how="Warm", exitcode=0)
    assert os.read(read, 10) == b"."
    os.close(read)
    os.close(write)
