"""A session in the caller's own thread, against a real server: all out, all in, an end when the time is up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backhaul.clock import SystemClock
from backhaul.errors import Misused, SignInRequired, Stopped, TryLater
from backhaul.remotes.base import Remote
from backhaul.remotes.http import HttpRemote
from backhaul.replica import checkpoint, outbox
from backhaul.session import Session
from backhaul.wire import Registered
from tests.journey.server_process import ServerProcess, serving
from tests.replicas import Replica, make_replica
from tests.waiting import eventually

LONG = timedelta(seconds=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@dataclass
class Signed:
    """A replica, and what `init` would have kept for it."""

    replica: Replica
    url: str
    identity: Registered

    def session(self, **options: Any) -> Session:
        def open_remote() -> Remote:
            opened = HttpRemote(self.url, self.identity.token)
            opened.belong(self.identity.replica, lambda registered: None)
            return opened

        return Session(self.replica.database, SystemClock(), open_remote, **options)


@contextmanager
def signed_in(path: Path, server: ServerProcess) -> Iterator[Signed]:
    kept: list[Registered] = []
    with closing(HttpRemote(server.url)) as remote:
        remote.belong(None, kept.append)
        replica = make_replica(path, remote, code=server.enrol())
    with closing(replica):
        yield Signed(replica, server.url, kept[0])


@pytest.fixture
def pair(tmp_path: Path, server: ServerProcess) -> Iterator[tuple[Signed, Signed]]:
    with signed_in(tmp_path / "here.db", server) as here, signed_in(tmp_path / "there.db", server) as there:
        yield here, there


def claimed(replica: Replica, lease_ms: int) -> list[outbox.Change]:
    """As a worker does that is killed then."""
    with replica.database.writing() as connection:
        checkpoint.hold(connection)
        return outbox.claim(connection, now=SystemClock().now(), limit=1_000, lease_ms=lease_ms)


def test_all_goes_out_and_all_comes_in(pair: tuple[Signed, Signed]) -> None:
    here, there = pair
    for number in range(30):
        here.replica.write("INSERT INTO customer (id, name) VALUES (?, ?)", number, f"n{number}")
    with here.session() as session:
        assert session.upload_all_local_changes(timeout=LONG).acked == 30
        assert session.upload_all_local_changes(timeout=LONG).acked == 0
    session = there.session()  # without `with`, each call has a connection of its own
    assert session.download_all_server_changes(60).records == 30
    assert there.replica.rows("customer") == here.replica.rows("customer")
    assert session.download_all_server_changes(60).records == 0


def test_what_a_worker_has_in_hand_is_waited_for(pair: tuple[Signed, Signed]) -> None:
    here, _ = pair
    here.replica.write("INSERT INTO customer (id, name) VALUES (100, 'Ada')")
    changes = claimed(here.replica, 60_000)
    assert len(changes) == 1
    done: list[int] = []

    def upload() -> None:
        done.append(here.session().upload_all_local_changes(timeout=LONG).acked)

    thread = threading.Thread(target=upload)
    thread.start()
    with pytest.raises(TryLater, match="1 change is not uploaded yet") as caught:
        here.session().upload_all_local_changes(timeout=0.2)
    assert caught.value.hint
    assert thread.is_alive()
    with here.replica.database.writing() as connection:  # the worker is back, and lets go
        checkpoint.hold(connection)
        outbox.release(connection, changes, next_at=0, error="killed")
    eventually(lambda: not thread.is_alive(), 30, "the session ends")
    assert done == [1]


def test_two_sessions_at_once_send_each_change_once(pair: tuple[Signed, Signed]) -> None:
    here, there = pair
    for number in range(200, 400):
        here.replica.write("INSERT INTO customer (id, name) VALUES (?, 'x')", number)
    sent: list[int] = []
    threads = [
        threading.Thread(target=lambda: sent.append(here.session().upload_all_local_changes(LONG).acked))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(sent) == 200
    for one in pair:
        one.session().download_all_server_changes(LONG)
    assert there.replica.rows("customer") == here.replica.rows("customer")


def test_a_server_that_is_not_there_is_try_later_and_keeps_everything(tmp_path: Path) -> None:
    with serving(tmp_path / "server") as server, signed_in(tmp_path / "here.db", server) as here:
        here.replica.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
        server.kill()
        for call in ("upload_all_local_changes", "download_all_server_changes"):
            with pytest.raises(TryLater):
                getattr(here.session(), call)(timeout=LONG)
        server.start()
        with here.replica.database.writing() as connection:
            connection.exec_driver_sql("UPDATE backhaul_outbox SET next_at = 0")
        assert here.session().upload_all_local_changes(timeout=LONG).acked == 1


def test_a_run_that_is_to_stop_stops_its_session(pair: tuple[Signed, Signed]) -> None:
    class Stopping:
        def check(self) -> None:
            raise Stopped("CONSTRAINT_CONNECTIVITY")

        def progress(self, said: dict[str, Any]) -> None:
            pass

    with pytest.raises(Stopped, match="CONNECTIVITY"), pair[0].session(run=Stopping()) as session:
        session.download_all_server_changes(timeout=LONG)


def test_a_run_hears_how_far_it_is(pair: tuple[Signed, Signed]) -> None:
    here, _ = pair
    here.replica.write("INSERT INTO customer (id, name) VALUES (500, 'Ada')")
    here.session(run=here.replica.context).upload_all_local_changes(timeout=LONG)
    assert here.replica.context.said[-1] == {"done": 1, "total": 1}


@pytest.mark.parametrize("wrong", [-1, timedelta(seconds=-1), "60", None, True, float("nan")])
def test_a_timeout_that_is_none_is_misuse(pair: tuple[Signed, Signed], wrong: Any) -> None:
    with pytest.raises(Misused, match="timeout is") as caught:
        pair[0].session().upload_all_local_changes(timeout=wrong)
    assert caught.value.hint


def test_without_a_token_there_is_no_session(pair: tuple[Signed, Signed]) -> None:
    def no_token() -> Remote:
        raise SignInRequired("no token", hint="backhaul init --code CODE")

    with pytest.raises(SignInRequired), Session(pair[0].replica.database, SystemClock(), no_token):
        pass
