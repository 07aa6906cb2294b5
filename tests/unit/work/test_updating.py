"""Other terms for work that is there, and the override of a next run."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backhaul.backoff import Backoff
from backhaul.errors import Misused, Unknown
from backhaul.work import Constraints, OneTimeWork, PeriodicWork, chain, ledger
from backhaul.work.context import Context
from tests.unit.work.desk import HOUR, MINUTE, Desk, again, done


def hourly(**asked: Any) -> PeriodicWork:
    return PeriodicWork("shop.tidy", every=timedelta(hours=1), **asked)


def at(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def test_an_update_frees_work_that_waits_for_a_constraint(desk: Desk) -> None:
    work = OneTimeWork("shop.mail", constraints=Constraints(charging=True))
    desk.works.enqueue(work)
    desk.switch("charging", False)
    assert desk.works.update(replace(work, constraints=Constraints())) == "APPLIED_IMMEDIATELY"
    row = desk.row(work)
    assert (row.queue, row.generation, row.requires) == ("sync", 1, ())
    assert [ring.generation for ring in desk.bell.rung] == [0, 1]
    assert desk.run(work, generation=0).kind == "not-claimed"
    assert desk.run(work).kind == "done"


def test_an_update_of_finished_work_is_not_applied(desk: Desk) -> None:
    work = OneTimeWork("shop.mail")
    desk.works.enqueue(work)
    desk.run(work)
    before = desk.row(work)
    assert desk.works.update(replace(work, tags={"new"})) == "NOT_APPLIED"
    assert desk.row(work) == before


def test_an_update_needs_work_that_is_there_and_of_its_kind(desk: Desk) -> None:
    with pytest.raises(Unknown):
        desk.works.update(OneTimeWork("shop.mail"))
    work = OneTimeWork("shop.mail")
    desk.works.enqueue(work)
    with pytest.raises(Misused, match="one-time"):
        desk.works.update(hourly(id=work.id))
    desk.works.cancel(work.id)
    with pytest.raises(Misused, match="one-time"):
        desk.works.update(hourly(id=work.id))


def test_blocked_work_stays_blocked_and_runs_under_the_new_terms(desk: Desk) -> None:
    a, b = OneTimeWork("shop.a"), OneTimeWork("shop.b")
    desk.works.enqueue(chain(a).then(b))
    assert desk.works.update(replace(b, initial_delay=timedelta(minutes=1))) == "APPLIED_IMMEDIATELY"
    assert desk.state(b) == "BLOCKED"
    desk.run(a)
    assert (desk.state(b), desk.row(b).due_at) == ("ENQUEUED", desk.now + MINUTE)


def test_an_update_clears_the_progress_of_what_does_not_run_and_keeps_its_attempts(desk: Desk) -> None:
    work = OneTimeWork("shop.mail")
    desk.works.enqueue(work)

    def stopped(context: Context) -> None:
        context.progress({"n": 1})
        with desk.database.writing() as connection:
            ledger.request_stop(connection, work.id, "USER")
        context.check(force=True)

    desk.run(work, stopped)
    assert (desk.row(work).progress, desk.row(work).attempt) == ({"n": 1}, 1)
    desk.works.update(replace(work, tags={"new"}))
    assert (desk.row(work).progress, desk.row(work).attempt) == (None, 1)


def test_an_update_measures_a_delay_from_when_it_was_enqueued(desk: Desk) -> None:
    work, began = OneTimeWork("shop.mail", initial_delay=timedelta(hours=1)), desk.now
    desk.works.enqueue(work)
    desk.clock.advance(10 * MINUTE)
    desk.works.update(replace(work, initial_delay=timedelta(minutes=30)))
    assert desk.row(work).due_at == began + 30 * MINUTE
    desk.works.update(replace(work, initial_delay=timedelta(0), begin_at=at(began + 20 * MINUTE)))
    assert desk.row(work).due_at == began + 20 * MINUTE


def test_an_update_says_until_when_it_is_to_have_begun_from_when_it_was_enqueued(desk: Desk) -> None:
    work = OneTimeWork("shop.mail", initial_delay=timedelta(minutes=10), expires_after=timedelta(hours=1))
    desk.works.enqueue(work)
    enqueued = desk.now
    desk.clock.advance(MINUTE)
    desk.works.update(replace(work, expires_after=timedelta(hours=2)))
    assert desk.row(work).expires_at == enqueued + 2 * HOUR
    desk.works.update(replace(work, expires_after=None))
    assert desk.row(work).expires_at is None


def test_what_may_not_begin_before_it_expires_is_refused_when_it_is_enqueued_and_updated(desk: Desk) -> None:
    late = OneTimeWork("shop.mail", begin_at=at(desk.now + HOUR), expires_after=timedelta(hours=1))
    with pytest.raises(Misused, match=r"begin_at is .* and by expires_after it is cancelled at"):
        desk.works.enqueue([OneTimeWork("shop.mail"), late])
    assert desk.works.query() == []
    in_time = replace(late, expires_after=timedelta(minutes=61))
    desk.works.enqueue(in_time)
    with pytest.raises(Misused, match="expires_after"):
        desk.works.update(late)
    assert desk.row(late).expires_at == desk.now + 61 * MINUTE


def test_an_update_with_another_backoff_measures_the_wait_anew(desk: Desk) -> None:
    work = OneTimeWork("shop.mail", backoff=Backoff(policy="linear", initial_ms=HOUR))
    desk.works.enqueue(work)
    desk.run(work, again)
    retried = desk.now
    assert desk.row(work).due_at == retried + HOUR
    desk.works.update(replace(work, backoff=Backoff(policy="linear", initial_ms=10_000)))
    assert desk.row(work).due_at == retried + 10_000


# ------------------------------------------------------------------------------------------------- next-run override


def test_the_first_run_is_at_the_moment_that_was_said(desk: Desk) -> None:
    work = hourly(flex=timedelta(minutes=5), next_run_at=at(desk.now + 7))
    desk.works.enqueue(work)
    assert desk.row(work).due_at == desk.now + 7


def test_a_later_run_is_not_before_15_minutes_after_the_last(desk: Desk) -> None:
    work = hourly()
    desk.works.enqueue(work)
    desk.run(work)
    desk.works.override_next_run(work.id, at(desk.now + MINUTE))
    assert desk.row(work).due_at == desk.now + 15 * MINUTE
    desk.works.override_next_run(work.id, at(desk.now + 20 * MINUTE))
    assert desk.row(work).due_at == desk.now + 20 * MINUTE


@pytest.mark.parametrize("body", [done, again], ids=["success", "retry"])
def test_an_override_from_before_a_run_is_used_up_by_it(desk: Desk, body: Any) -> None:
    work = hourly(next_run_at=at(desk.now))
    desk.works.enqueue(work)
    desk.run(work, body)
    assert desk.row(work).override_at is None


@pytest.mark.parametrize("body", [done, again], ids=["success", "retry"])
def test_an_override_that_is_said_while_it_runs_is_for_the_run_after(desk: Desk, body: Any) -> None:
    work = hourly(next_run_at=at(desk.now))
    desk.works.enqueue(work)
    later = desk.now + 40 * MINUTE

    def overridden(context: Context) -> Any:
        desk.works.override_next_run(work.id, at(later))
        return body(context)

    desk.run(work, overridden)
    assert (desk.row(work).override_at, desk.row(work).due_at) == (later, later)
    desk.clock.time = later
    desk.run(work)
    assert (desk.row(work).override_at, desk.row(work).due_at) == (None, later + HOUR)


def test_a_stop_keeps_the_override(desk: Desk) -> None:
    work = hourly(next_run_at=at(desk.now))
    desk.works.enqueue(work)
    run = desk.claim(work)
    stopped = desk.settle(ledger.stop, run, reason="CONSTRAINT_CHARGING")
    assert (stopped.override_at, stopped.due_at) == (desk.now, desk.now)


def test_an_update_keeps_an_override_that_it_does_not_speak_of(desk: Desk) -> None:
    work = hourly(next_run_at=at(desk.now + MINUTE))
    desk.works.enqueue(work)
    desk.works.update(replace(work, next_run_at=None, tags={"new"}))
    assert (desk.row(work).override_at, desk.row(work).due_at) == (desk.now + MINUTE, desk.now + MINUTE)
    desk.works.update(replace(work, next_run_at=at(desk.now + 2 * MINUTE)))
    assert desk.row(work).due_at == desk.now + 2 * MINUTE


def test_an_override_ends_a_backoff_for_one_run(desk: Desk) -> None:
    work = hourly()
    desk.works.enqueue(work)
    desk.run(work, again)
    assert desk.row(work).due_at == desk.now + 30_000
    desk.works.override_next_run(work.id, at(desk.now))
    assert desk.row(work).due_at == desk.now
    desk.works.override_next_run(work.id, None)
    assert desk.row(work).due_at == desk.now + 30_000


def test_only_periodic_work_that_goes_on_has_a_next_run(desk: Desk) -> None:
    one, over = OneTimeWork("shop.mail"), hourly()
    desk.works.enqueue([one, over])
    desk.works.cancel(over.id)
    for work_id in (one.id, over.id):
        with pytest.raises(Misused, match="override"):
            desk.works.override_next_run(work_id, at(desk.now))
