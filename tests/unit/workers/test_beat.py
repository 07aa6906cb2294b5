"""What a tick of Beat does when the clock was set back, and when more is due than it rings for at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from backhaul.database import Database, open_database
from backhaul.errors import DatabaseBusy
from backhaul.migrations import upgrade_replica
from backhaul.work import Work, WorkRequest, ledger
from config.settings import Settings
from tests.services import PostgreSQL
from workers import beat
from workers.replica import WorkerReplica

NOON = 1_767_355_200_000
HOUR = 3_600_000


class Here:
    """A replica with this database, and a clock that is moved."""

    on_server = False

    def __init__(self, database: Database) -> None:
        self.opened = database
        self.database = self
        self.settings = Settings(home=Path("/nowhere"))
        self.time = NOON

    @contextmanager
    def using(self) -> Iterator[Database]:
        yield self.opened

    def now(self) -> int:
        return self.time


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    database = open_database(f"sqlite:///{tmp_path}/app.db")
    upgrade_replica(database)
    yield Here(database)
    database.close()


@pytest.fixture
def scheduler(here: Here, monkeypatch: pytest.MonkeyPatch) -> beat.LedgerScheduler:
    app = Celery("test", set_as_current=False)
    app.replica = here
    made = beat.LedgerScheduler(app)
    made._clock = here
    made._pruned_at = NOON
    monkeypatch.setattr(beat, "ring_due", lambda *_, **__: [])
    return made


def enqueued(here: Here, **asked: Any) -> str:
    with here.opened.writing() as connection:
        asked_for = WorkRequest(task="shop.mail", **asked)
        return ledger.enqueue(connection, asked_for, queue="sync", now=here.time).id


def claimed(here: Here, work_id: str) -> Work:
    with here.opened.writing() as connection:
        run = ledger.claim(connection, work_id, 0, worker="w1", now=here.time, lease_ms=20_000)
    assert run is not None
    return run


def state_of(here: Here, work: Work) -> str:
    with here.opened.reading() as connection:
        row = ledger.get(connection, work.id)
    assert row is not None
    return row.state


def due_at(here: Here, work_id: str) -> int:
    with here.opened.reading() as connection:
        work = ledger.get(connection, work_id)
    assert work is not None
    return work.due_at


def test_what_began_to_wait_ahead_is_due_at_the_first_tick_after_the_clock_was_set_back(
    here: Here, scheduler: beat.LedgerScheduler
) -> None:
    scheduler.tick()
    work_id = enqueued(here)
    here.time -= HOUR
    scheduler.tick()
    assert due_at(here, work_id) == here.time


def test_a_beat_that_leads_renews_its_lease_though_the_clock_was_set_back(
    here: Here, scheduler: beat.LedgerScheduler
) -> None:
    scheduler.tick()
    here.time -= HOUR
    scheduler.tick()
    with here.opened.reading() as connection:
        until = connection.exec_driver_sql("SELECT until FROM backhaul_lease").scalar_one()
    assert until == here.time + beat.LEASE_MS


def test_what_has_slept_with_its_machine_may_renew_its_lease_before_it_is_taken_for_lost(
    here: Here, scheduler: beat.LedgerScheduler
) -> None:
    scheduler.tick()
    sleeper, dead = (claimed(here, enqueued(here)) for _ in range(2))
    here.time += HOUR
    scheduler.tick()
    assert state_of(here, sleeper) == state_of(here, dead) == "RUNNING"
    with here.opened.writing() as connection:
        ledger.renew(connection, sleeper, now=here.time, lease_ms=20_000)
    for _ in range(beat.PATIENCE_MS // 1_000):
        here.time += 1_000
        scheduler.tick()
    assert (state_of(here, sleeper), state_of(here, dead)) == ("RUNNING", "ENQUEUED")


def test_a_beat_that_is_held_up_at_each_look_takes_back_what_has_died_all_the_same(
    here: Here, scheduler: beat.LedgerScheduler
) -> None:
    scheduler.tick()
    dead = claimed(here, enqueued(here))
    for _ in range(3):
        here.time += beat.AWAY_MS + 1_000
        scheduler.tick()
    assert state_of(here, dead) == "ENQUEUED"


def test_a_beat_that_has_just_begun_takes_back_at_once_what_has_died(
    here: Here, scheduler: beat.LedgerScheduler
) -> None:
    dead = claimed(here, enqueued(here))
    here.time += HOUR
    scheduler.tick()
    assert state_of(here, dead) == "ENQUEUED"


def test_all_that_waits_is_looked_at_seldom(
    here: Here, scheduler: beat.LedgerScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(beat.ledger, "has_begun_ahead", lambda _, now: looks.append(now))
    for _ in range(100):
        scheduler.tick()
        here.time += 1_000
    assert looks == [NOON]


def test_beat_comes_again_at_once_when_more_is_due_than_it_rings_for_at_once(
    scheduler: beat.LedgerScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scheduler.tick() == beat.LOOK_SECONDS
    monkeypatch.setattr(beat, "ring_due", lambda *_, **__: [None] * beat.BATCH)
    assert scheduler.tick() < beat.LOOK_SECONDS / 10


def test_a_busy_database_does_not_keep_the_bell_from_being_rung(
    here: Here, scheduler: beat.LedgerScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: Any) -> None:
        raise DatabaseBusy("the database is locked by another program", hint="try again")

    rung: list[int] = []
    monkeypatch.setattr(beat.ledger, "has_lost", busy)
    monkeypatch.setattr(beat, "ring_due", lambda *_, now, **__: rung.append(now) or [])
    scheduler.tick()
    assert rung == [NOON]


def test_a_look_does_not_wait_for_ever_for_a_process_of_postgresql_that_hangs(
    tmp_path: Path, cluster: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beat, "SILENT_SECONDS", 0.5)
    url = cluster.database()
    database = open_database(url)
    upgrade_replica(database)
    database.close()
    app = Celery("test", set_as_current=False)
    app.replica = WorkerReplica(
        Settings(home=tmp_path, replica={"database": url}, broker={"url": "redis://127.0.0.1:1/"})
    )
    scheduler = beat.LedgerScheduler(app)
    with app.replica.database.using() as opened:
        with opened.reading() as connection:
            hangs = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        os.kill(hangs, signal.SIGSTOP)
    look = threading.Thread(target=scheduler.tick, daemon=True)
    try:
        look.start()
        look.join(60)
        assert not look.is_alive()
        scheduler.tick()  # by another process
        assert scheduler._leading
    finally:
        os.kill(hangs, signal.SIGCONT)
        scheduler.close()
        app.close()
