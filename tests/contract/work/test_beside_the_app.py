"""On PostgreSQL an app may hold work in a transaction of its own as long as it likes: Beat and claims go round it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import Connection, text

from backhaul.database import Database
from backhaul.work import OneTimeWork, ledger, roster
from backhaul.work.ledger import claiming
from config.settings import Settings
from tests.unit.work.desk import HOUR, MINUTE, Desk
from tests.waiting import eventually
from workers import beat, ringing


@pytest.fixture
def kind() -> str:
    return "postgresql"


@contextmanager
def held(desk: Desk, *works: OneTimeWork) -> Iterator[Connection]:
    """By an app that has appended to them, and has not committed yet."""
    for work in works:
        desk.works.enqueue_unique(work.id, "append", work)
    with desk.engine.begin() as connection:
        hold(desk, connection, *works)
        yield connection


def hold(desk: Desk, connection: Connection, *works: OneTimeWork) -> None:
    for work in works:
        desk.works.enqueue_unique(work.id, "append", OneTimeWork("shop.then"), connection=connection)


class Here:
    """A replica on the desk's database, and its clock."""

    on_server = False  # nobody loses his patience here

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.database = self
        self.settings = Settings(home=Path("/nowhere"))

    @contextmanager
    def using(self) -> Iterator[Database]:
        yield self.desk.database


@pytest.fixture
def scheduler(desk: Desk) -> beat.LedgerScheduler:
    app = Celery("test", set_as_current=False)
    app.replica = Here(desk)
    made = beat.LedgerScheduler(app)
    made._clock = desk.clock
    made._pruned_at = desk.now
    return made


def test_a_tick_of_beat_does_what_it_can_while_the_app_holds_other_work(
    desk: Desk, scheduler: beat.LedgerScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(ringing, "publish", lambda _app, rings: said.extend(ring.work_id for ring in rings))
    soon = timedelta(minutes=1)
    due, lost = [OneTimeWork("shop.a", initial_delay=soon) for _ in range(2)], OneTimeWork("shop.b")
    late, mine = [OneTimeWork("shop.c", expires_after=soon) for _ in range(2)], due[0]
    desk.works.enqueue([due[1], late[1], lost])
    desk.claim(lost, lease_ms=1)
    with held(desk, mine, late[0]):
        desk.clock.advance(MINUTE)
        scheduler.tick()
    assert sorted(said) == sorted([due[1].id, lost.id])
    assert [desk.row(work).rung_at for work in (*due, lost)] == [0, desk.now, desk.now]
    assert [desk.state(work) for work in late] == ["ENQUEUED", "CANCELLED"]
    scheduler.tick()
    assert said[2:] == [mine.id]
    assert desk.state(late[0]) == "CANCELLED"


def test_what_expires_is_left_whole_while_a_part_of_what_waits_for_it_is_held(desk: Desk) -> None:
    late, then = OneTimeWork("shop.a", expires_after=timedelta(minutes=1)), OneTimeWork("shop.b")
    desk.works.enqueue_unique("it", "append", late)
    desk.works.enqueue_unique("it", "append", then)
    desk.clock.advance(MINUTE)
    with desk.engine.begin() as app:
        desk.works.enqueue_unique("it", "append", OneTimeWork("shop.c"), connection=app)
        with desk.database.writing() as connection:
            assert ledger.expire(connection, desk.now) == []
    with desk.database.writing() as connection:
        assert len(ledger.expire(connection, desk.now)) == 3


def test_what_expires_is_found_behind_what_is_held(desk: Desk) -> None:
    soon = timedelta(minutes=1)
    late, other = [OneTimeWork("shop.a", expires_after=soon, id=work_id) for work_id in ("a", "z")]
    desk.works.enqueue_unique("it", "append", late)
    desk.works.enqueue_unique("it", "append", OneTimeWork("shop.b"))
    desk.works.enqueue(other)
    desk.clock.advance(MINUTE)
    with desk.engine.begin() as app:
        desk.works.enqueue_unique("it", "append", OneTimeWork("shop.c"), connection=app)
        with desk.database.writing() as connection:
            assert [one.id for one in ledger.expire(connection, desk.now, limit=1)] == [other.id]


def test_what_has_died_too_often_is_left_whole_and_holds_nobody_up_while_a_part_of_it_is_held(desk: Desk) -> None:
    deadly, then, last, lost = (OneTimeWork("shop.a", id=work_id) for work_id in "abcd")
    desk.works.enqueue_unique("it", "append", deadly)
    desk.works.enqueue_unique("it", "append", then)
    desk.works.enqueue([last, lost])
    for work in (deadly, last):
        desk.claim(work, lease_ms=MINUTE, process=7)
    desk.claim(lost, lease_ms=MINUTE, process=8)
    with desk.database.writing() as connection:
        roster.beat(connection, name="w1", pid=1, queues=(), now=desk.now, processes=[8])
        connection.execute(text("UPDATE backhaul_worker SET seen_at = :at"), {"at": desk.now + MINUTE})
    desk.clock.advance(MINUTE)

    def recovered(limit: int) -> list[str]:
        with desk.database.writing() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout = '1s'")
            return [work.id for work in ledger.recover(connection, desk.now, most_losses=1, limit=limit)]

    with desk.engine.begin() as app:
        desk.works.enqueue_unique("it", "append", OneTimeWork("shop.e"), connection=app)
        assert recovered(1) == [last.id]
        assert recovered(9) == [lost.id]
        assert recovered(9) == []
    assert [desk.state(work) for work in (deadly, then, last, lost)] == ["RUNNING", "BLOCKED", "FAILED", "ENQUEUED"]
    assert recovered(9) == [deadly.id]
    assert [desk.state(work) for work in (deadly, then)] == ["FAILED", "FAILED"]


def test_a_mark_and_a_look_for_a_wrong_clock_go_round_what_is_held(desk: Desk) -> None:
    mine, other = OneTimeWork("shop.a"), OneTimeWork("shop.b")
    desk.works.enqueue(other)
    with held(desk, mine), desk.database.writing() as connection:
        ledger.mark_rung(connection, [desk.row(mine), desk.row(other)], desk.now)
        ledger.mend_clock(connection, desk.now - HOUR)
    assert (desk.row(mine).enqueued_at, desk.row(other).enqueued_at) == (desk.now, desk.now - HOUR)


def test_a_claim_gives_up_work_that_is_held_and_its_transaction_goes_on(desk: Desk) -> None:
    work = OneTimeWork("shop.a")
    with held(desk, work), desk.database.writing() as connection:
        assert ledger.claim(connection, work.id, 0, worker="w1", now=desk.now, lease_ms=MINUTE) is None
        patience = connection.scalar(text("SHOW lock_timeout"))
    assert (desk.state(work), patience) == ("ENQUEUED", "10s")
    desk.claim(work)


def test_a_claim_waits_for_who_has_just_marked_the_work_as_rung(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claiming, "PATIENCE_MS", 60_000)
    work, claimed = OneTimeWork("shop.a"), []
    desk.works.enqueue(work)
    waits = desk.row(work)
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    thread = threading.Thread(target=lambda: claimed.append(desk.claim(work)))
    with desk.engine.connect() as other:
        with desk.database.writing() as connection:
            ledger.mark_rung(connection, [waits], desk.now)
            thread.start()
            eventually(lambda: _asked(other, waiting))
        thread.join(60)
    assert [one.id for one in claimed] == [work.id]


def _asked(connection: Connection, statement: str) -> Any:
    with connection.begin():
        return connection.scalar(text(statement))
