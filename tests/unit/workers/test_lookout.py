"""The lookout judges once a second, and at once when it is woken, whatever else of the worker's world hangs."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.migrations import upgrade_replica
from backhaul.work import conditions, roster
from config.celery import make_app
from config.loading import load
from tests.crew import CONFIGURATION
from tests.services import PostgreSQL
from tests.waiting import eventually
from workers import lookout as module
from workers.errand import Errand
from workers.lookout import Lookout
from workers.replica import WorkerReplica

OFF = "BACKHAUL_CONDITION_UNMETERED"  # as a probe would have it: known without the database
WIDE = 10.0


class World:
    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, *, url: str = "sqlite:///shop.db") -> None:
        configuration = CONFIGURATION.replace("sqlite:///shop.db", url)
        (home / "backhaul.toml").write_text(configuration + '[broker]\nurl = "redis://127.0.0.1:1/"\n')
        self.settings = load(home)
        self.database = open_database(self.settings.database_url)
        upgrade_replica(self.database)
        app = make_app(self.settings, current=False)
        self.replica = app.replica = WorkerReplica(self.settings)
        self.flips: list[tuple[float, bool]] = []
        self.lookout = Lookout(app, name="one@here", served=["sync", "media"])
        monkeypatch.setattr(module.ending, "begin", lambda: None)  # the tests' own process goes on

    def begin(self) -> None:
        self.lookout.start()
        self.lookout.judged = self.note

    def note(self) -> None:
        is_open = self.lookout.states["media"].open
        if not self.flips or self.flips[-1][1] != is_open:
            self.flips.append((time.monotonic(), is_open))

    def saw(self, is_open: bool, since: float) -> float | None:
        return next((at - since for at, seen in self.flips if seen is is_open and at >= since), None)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path, monkeypatch)
    yield world
    world.lookout.end()
    world.replica.end()
    world.database.close()


def test_what_an_operator_overrides_is_seen_at_the_next_look(world: World) -> None:
    world.begin()
    began = time.monotonic()
    with world.database.writing() as connection:
        conditions.set_condition(connection, "unmetered", False, now=SystemClock().now())
    eventually(lambda: world.saw(False, began), WIDE, "media is closed")
    assert world.lookout.states["sync"].open
    eventually(lambda: _roster(world)["media"] is False, WIDE, "it stands on the roster")


def test_an_override_that_expires_is_seen_though_nobody_writes(world: World) -> None:
    now = SystemClock().now()
    with world.database.writing() as connection:
        conditions.set_condition(connection, "unmetered", False, now=now, expires_at=now + 1_500)
    world.begin()
    assert not world.lookout.states["media"].open
    eventually(lambda: world.lookout.states["media"].open, WIDE, "media is open again")


def test_who_wakes_it_need_not_wait_for_the_next_second(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 3_600.0)
    world.begin()
    began = time.monotonic()
    monkeypatch.setenv(OFF, "off")
    world.lookout.wake()
    eventually(lambda: world.saw(False, began), WIDE, "media is closed")


def test_while_nothing_moves_the_database_is_asked_for_nothing_but_that(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 3_600.0)
    monkeypatch.setattr(module, "BEAT_MS", 3_600_000)
    world.begin()
    looks, said = world.lookout._see_to_database, []
    looks()
    with world.lookout._database.using() as database:
        event.listen(database.engine, "before_cursor_execute", lambda *told: said.append(told[2]))
        event.listen(database.engine, "begin", said.append)
    looks()
    assert said == []
    with world.database.writing() as connection:
        conditions.set_condition(connection, "unmetered", False, now=SystemClock().now())
    looks()
    assert not world.lookout.states["media"].open
    assert len(said) > 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the database is asked each second")
class TestWhoRests:
    """Nothing is due for an hour, and it runs nothing."""

    @pytest.fixture
    def resting(self, world: World, monkeypatch: pytest.MonkeyPatch) -> World:
        monkeypatch.setattr(module, "BEAT_MS", 3_600_000)
        world.lookout.consuming = True
        return world

    def test_an_override_is_seen_because_the_file_was_written(self, resting: World) -> None:
        resting.begin()
        eventually(lambda: resting.lookout._told_of_files, WIDE, "it rests")
        for closed in (True, False):  # of which the second is written within a second of the first look
            began = time.monotonic()
            with resting.database.writing() as connection:
                conditions.set_condition(connection, "unmetered", not closed, now=SystemClock().now())
            eventually(lambda was=began, is_open=not closed: resting.saw(is_open, was), WIDE, "it is followed")  # type: ignore[misc]

    def test_it_is_seen_though_everybody_else_had_closed_the_database(self, resting: World) -> None:
        """The last one to close it takes the log away, and the next one makes another."""
        resting.begin()
        with resting.lookout._database.using():
            resting.lookout._database._close()
            resting.database.close()
        began = time.monotonic()
        database = open_database(resting.settings.database_url)
        with database.writing() as connection:
            conditions.set_condition(connection, "unmetered", False, now=SystemClock().now())
        eventually(lambda: resting.saw(False, began), WIDE, "media is closed")
        database.close()

    def test_an_override_that_expires_is_seen(self, resting: World) -> None:
        now = SystemClock().now()
        with resting.database.writing() as connection:
            conditions.set_condition(connection, "unmetered", False, now=now, expires_at=now + 1_500)
        resting.begin()
        eventually(lambda: resting.lookout.states["media"].open, WIDE, "media is open again")

    def test_its_pause_ends_with_what_is_due(self, resting: World) -> None:
        resting.lookout._beat_at = SystemClock().now()
        assert resting.lookout._pause() > 60
        quiet = resting.settings.quiet.model_copy(update={"hours": ["22:00-06:00"]})
        resting.lookout._settings = resting.settings.model_copy(update={"quiet": quiet})
        assert resting.lookout._pause() <= 60

    @pytest.mark.parametrize("what", ["no broker", "a run", "a probe"])
    def test_who_has_something_to_do_does_not_rest(
        self, resting: World, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        assert resting.lookout._rests()
        if what == "no broker":
            resting.lookout.consuming = False
        elif what == "a run":
            monkeypatch.setattr(module.state, "reserved_requests", {"a request"})
        else:
            resting.lookout._machine._held = True
        assert not resting.lookout._rests()

    def test_what_is_said_and_not_committed_yet_is_looked_for_again(
        self, resting: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lookout = resting.lookout

        def rests() -> bool:
            lookout._see_to_database()
            return lookout._told_of_files

        eventually(rests, WIDE, "what opened was rung for")
        monkeypatch.setattr(lookout._watch, "moved", lambda _: False)
        with resting.database.writing() as connection:
            conditions.set_condition(connection, "unmetered", False, now=SystemClock().now())
        lookout._see_to_database()
        assert not lookout._told_of_files


def test_it_judges_while_another_program_holds_the_database(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.begin()
    holder = sqlite3.connect(world.settings.home / "shop.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        flips_keep_coming(world, monkeypatch)
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    eventually(lambda: _roster(world)["media"] is False, WIDE, "what could not be written is, a second later")


def test_it_judges_while_the_broker_is_mended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mended = threading.Event()
    monkeypatch.setattr(world.replica, "broker_answers", lambda: False)
    monkeypatch.setattr(world.replica, "ensure_broker", lambda: mended.wait(60))
    world.begin()
    try:
        flips_keep_coming(world, monkeypatch)
    finally:
        mended.set()


def test_it_judges_while_a_bell_cannot_be_rung(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rung, goes_on = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> None:
        rung.set()
        goes_on.wait(60)

    monkeypatch.setattr(module, "ring_due", hang)
    world.begin()
    try:
        flips_keep_coming(world, monkeypatch)
        assert rung.wait(WIDE), "what has opened is rung for"
        flips_keep_coming(world, monkeypatch, "on", "off")
    finally:
        goes_on.set()


@pytest.fixture
def on_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: PostgreSQL) -> Iterator[World]:
    world = World(tmp_path, monkeypatch, url=cluster.database())
    yield world
    world.lookout.end()
    world.replica.end()
    world.database.close()


def test_on_postgresql_an_override_is_seen_at_the_next_look(on_server: World) -> None:
    test_what_an_operator_overrides_is_seen_at_the_next_look(on_server)


def test_it_judges_while_postgresql_does_not_answer(
    on_server: World, monkeypatch: pytest.MonkeyPatch, cluster: PostgreSQL
) -> None:
    on_server.begin()
    with cluster.silent():
        flips_keep_coming(on_server, monkeypatch)
    eventually(lambda: _roster(on_server)["media"] is False, WIDE, "what could not be written is, when it answers")


def test_a_process_of_postgresql_that_hangs_is_left_for_another_one(
    on_server: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.5)
    on_server.begin()
    with on_server.lookout._database.using() as database:
        with database.reading() as connection:
            hangs = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        os.kill(hangs, signal.SIGSTOP)  # between two transactions
    try:
        began = time.monotonic()
        with on_server.database.writing() as connection:
            conditions.set_condition(connection, "unmetered", False, now=SystemClock().now())
        eventually(lambda: on_server.saw(False, began), WIDE, "media is closed")
        eventually(lambda: _roster(on_server)["media"] is False, WIDE, "it stands on the roster")
    finally:
        os.kill(hangs, signal.SIGCONT)


def test_it_ends_while_postgresql_does_not_answer(on_server: World, cluster: PostgreSQL) -> None:
    on_server.begin()
    with cluster.silent():
        on_server.lookout.wake()
        ending = threading.Thread(target=on_server.lookout.end, daemon=True)
        ending.start()
        ending.join(3 * WIDE)
        assert not ending.is_alive()


def flips_keep_coming(world: World, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    for word in words or ("off", "on", "off"):
        began = time.monotonic()
        monkeypatch.setenv(OFF, word)
        took = eventually(lambda: world.saw(word == "on", began), WIDE, f"media follows {word}")  # noqa: B023
        assert took < WIDE / 2


def _roster(world: World) -> dict[str, bool]:
    with world.database.reading() as connection:
        (seen,) = roster.alive(connection, SystemClock().now())
    return {queue.name: queue.open for queue in seen.queues}


def test_an_errand_that_is_asked_for_while_it_is_under_way_is_done_once_more() -> None:
    done: list[int] = []
    may_go = threading.Semaphore(0)
    errand = Errand("test", lambda: (may_go.acquire(), done.append(1))[1])  # type: ignore[func-returns-value]
    for _ in range(3):
        errand.ask()
    may_go.release()
    eventually(lambda: len(done) == 1, WIDE)
    errand.ask()
    may_go.release(2)
    eventually(lambda: len(done) >= 2, WIDE)
    errand.end(WIDE)
    assert len(done) <= 3


def test_an_errand_that_fails_says_why_and_is_done_when_it_is_asked_for_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries: list[int] = []

    def fail() -> None:
        tries.append(1)
        raise OSError("no paper\n[parameters: a secret]")

    errand = Errand("test", fail)
    errand.ask()
    eventually(lambda: len(tries) == 1, WIDE)
    errand.ask()
    eventually(lambda: len(tries) == 2, WIDE)
    errand.end(WIDE)
    assert "the worker's test failed: OSError: no paper" in caplog.messages
    assert "secret" not in caplog.text
