"""The thread beside a run: a function that looks at nothing hears of its stop within a second, and keeps its lease."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from typing import Any

import pytest

from backhaul.clock import SystemClock
from backhaul.database import Database
from backhaul.work import ledger
from backhaul.work.context import Context
from backhaul.work.watching import watched
from tests.unit.work.bench import Bench
from tests.waiting import eventually


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(database, SystemClock())


def watch(context: Context) -> AbstractContextManager[None]:
    return watched(context, grace_ms=30_000, give_up=lambda _: None)


def later(act: Any) -> None:
    threading.Timer(0.2, act).start()


def test_a_wait_ends_when_the_work_is_cancelled(bench: Bench) -> None:
    work = bench.enqueue()

    def body(context: Context) -> None:
        later(lambda: bench.cancel(work))
        assert context.wait(60)
        assert context.stop_reason == "CANCELLED_BY_APP"

    began = time.monotonic()
    assert bench.run(work, body, watch=watch).kind == "cancelled"
    assert time.monotonic() - began < 5


def test_a_wait_ends_when_a_constraint_is_lost_also_without_the_thread(bench: Bench) -> None:
    work = bench.enqueue(requires=frozenset({"charging"}))

    def body(context: Context) -> None:
        later(lambda: bench.switch("charging", False))
        assert context.wait(60)

    assert bench.run(work, body).reason == "CONSTRAINT_CHARGING"


def test_a_wait_that_nothing_ends_takes_its_time(bench: Bench) -> None:
    def body(context: Context) -> None:
        assert not context.wait(0.05)

    assert bench.run(bench.enqueue(), body, watch=watch).kind == "done"


def test_a_worker_that_ends_stops_its_runs(bench: Bench) -> None:
    ending: list[bool] = []
    work = bench.enqueue()

    def body(context: Context) -> None:
        ending.append(True)
        assert context.wait(60)

    assert bench.run(work, body, watch=watch, ending=lambda: bool(ending)).reason == "DEPLOY_DRAIN"
    assert bench.row(work).state == "ENQUEUED"


def test_the_lease_is_kept_for_a_function_that_is_silent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backhaul.work.context.RENEW_EVERY_MS", 0)
    work = bench.enqueue()

    def body(context: Context) -> None:
        first = bench.row(work).lease_until
        eventually(lambda: bench.row(work).lease_until > first, 10, "the lease is renewed")

    assert bench.run(work, body, watch=watch).kind == "done"


def test_a_function_that_goes_on_after_its_stop_is_given_up_once(bench: Bench) -> None:
    work, given_up = bench.enqueue(), []

    def body(context: Context) -> None:
        with bench.database.writing() as connection:
            ledger.request_stop(connection, work.id, "USER")
        eventually(lambda: given_up, 10, "it is given up")
        time.sleep(1.2)  # two looks more

    def impatient(context: Context) -> AbstractContextManager[None]:
        return watched(context, grace_ms=0, give_up=lambda one: given_up.append(one.stop_reason))

    assert bench.run(work, body, watch=impatient).reason == "USER"
    assert given_up == ["USER"]


def test_a_database_that_cannot_be_read_does_not_end_the_watch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    work, real = bench.enqueue(), ledger.asked_to_stop
    broken = [True]

    def asked(*given: Any) -> str | None:
        if broken.pop() if broken else False:
            raise OSError("no such disk")
        return real(*given)

    monkeypatch.setattr("backhaul.work.ledger.asked_to_stop", asked)

    def body(context: Context) -> None:
        eventually(lambda: not broken, 10, "it was looked at")
        bench.cancel(work)
        assert context.wait(60)

    assert bench.run(work, body, watch=watch).kind == "cancelled"


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "backhaul-watch"]


def test_runs_after_one_another_are_watched_by_one_thread_and_it_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backhaul.work.watching.LOOK_SECONDS", 0.01)
    eventually(lambda: not watchers(), 10, "those of other tests have ended")
    monkeypatch.setattr(
        "backhaul.work.watching.LOOKS_UNUSED", 10**9
    )  # it stays between the runs, however slow they are
    seen: list[threading.Thread] = []
    for _ in range(3):
        bench.run(bench.enqueue(), lambda _: seen.extend(watchers()), watch=watch)
    assert len(seen) == 3
    assert len(set(seen)) == 1
    monkeypatch.setattr("backhaul.work.watching.LOOKS_UNUSED", 1)
    eventually(lambda: not watchers(), 10, "nobody needs it")


def test_a_watch_that_fails_costs_the_next_runs_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What gives a function up may meet a database that cannot be written."""
    monkeypatch.setattr("backhaul.work.watching.LOOK_SECONDS", 0.01)
    asked = threading.Event()

    def failing(_: Context) -> None:
        asked.set()
        raise OSError("no such disk")

    def body(context: Context) -> None:
        context.wait(30)
        assert asked.wait(30)

    first, second = bench.enqueue(), bench.enqueue()
    with bench.database.writing() as connection:
        ledger.request_stop(connection, first.id, "USER")
    later(lambda: bench.cancel(first))
    bench.run(first, body, watch=lambda context: watched(context, grace_ms=0, give_up=failing))

    def waiting(context: Context) -> None:
        later(lambda: bench.cancel(second))
        assert context.wait(60)

    assert bench.run(second, waiting, watch=watch).kind == "cancelled"


def test_runs_beside_each_other_are_each_stopped_by_their_own_row(bench: Bench) -> None:
    works = [bench.enqueue() for _ in range(3)]
    begun, kinds = threading.Barrier(4), {}

    def body(context: Context) -> None:
        begun.wait(30)
        assert context.wait(60)
        kinds[context.id] = context.stop_reason

    threads = [threading.Thread(target=bench.run, args=(work, body), kwargs={"watch": watch}) for work in works]
    for thread in threads:
        thread.start()
    begun.wait(30)
    for work in works:
        bench.cancel(work)
    for thread in threads:
        thread.join(30)
    assert kinds == {work.id: "CANCELLED_BY_APP" for work in works}
