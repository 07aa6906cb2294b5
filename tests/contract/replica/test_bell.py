"""PostgreSQL's bell: whoever writes, and by whatever means, is heard at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from tests.contract.replica.conftest import MakeReplica
from tests.replicas import Replica
from workers.listener import Listener

LONG = 30.0


@pytest.fixture
def replica(make_on: MakeReplica) -> Replica:
    return make_on("postgresql")


@pytest.fixture
def listener(replica: Replica) -> Iterator[Listener]:
    made = Listener(replica.database.engine.url.render_as_string(hide_password=False))
    assert made.listen()
    made.wait(0)  # whoever waits is woken by that
    yield made
    made.close()


def waited(listener: Listener, *, bell: bool = True) -> float:
    began = time.monotonic()
    assert listener.wait(LONG) is bell
    return time.monotonic() - began


def test_a_commit_is_heard_and_an_open_transaction_is_not(replica: Replica, listener: Listener) -> None:
    with replica.app.transaction():
        replica.app.execute("INSERT INTO tag VALUES ('a', '')")
        assert not listener.wait(0.2)  # the time has passed
    assert waited(listener) < LONG / 2


def test_what_was_rung_before_anyone_waited_is_not_lost(replica: Replica, listener: Listener) -> None:
    replica.write("INSERT INTO tag VALUES ('a', '')")
    assert waited(listener) < LONG / 2


def test_it_is_woken(listener: Listener) -> None:
    threading.Timer(0.1, listener.wake).start()
    assert waited(listener, bell=False) < LONG / 2


def test_who_already_waits_hears_a_connection_that_is_opened_meanwhile(replica: Replica, listener: Listener) -> None:
    listener.close()
    listener.wait(0)
    threading.Timer(0.1, listener.listen).start()
    assert waited(listener, bell=False) < LONG / 2
    replica.write("INSERT INTO tag VALUES ('a', '')")
    assert waited(listener) < LONG / 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_it_hears_on_after_this_process_has_forked(replica: Replica, listener: Listener) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert listener.listen()
    listener.wait(0)
    replica.write("INSERT INTO tag VALUES ('a', '')")
    assert waited(listener) < LONG / 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_does_not_wait_for_who_waits_for_the_bell(listener: Listener) -> None:
    ended = threading.Event()

    def wait_for_ever() -> None:
        while not ended.is_set():
            listener.wait(LONG)

    waiting = threading.Thread(target=wait_for_ever)
    waiting.start()
    began = time.monotonic()
    for _ in range(20):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        assert listener.listen()
    assert time.monotonic() - began < LONG / 2
    ended.set()
    listener.wake()
    waiting.join()


def test_a_database_that_is_gone_is_said_at_once() -> None:
    listener = Listener("postgresql+psycopg://nobody@127.0.0.1:1/none")
    assert not listener.listen()
    assert not listener.wait(0)
    listener.close()


def test_without_a_bell_it_is_woken_all_the_same() -> None:
    listener = Listener(None)
    assert not listener.listen()
    threading.Timer(0.1, listener.wake).start()
    assert waited(listener, bell=False) < LONG / 2
    listener.close()
