"""The testing kit: what it lets run and when, what it refuses, and what its assertions say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from backhaul.backoff import Backoff
from backhaul.bell import Queue
from backhaul.errors import Misused, SignInRequired, TryLater, Unknown, WorkUnplaceable
from backhaul.testing import Harness, MovedClock, call
from backhaul.work import (
    Constraints,
    Context,
    FileTrigger,
    OneTimeWork,
    PeriodicWork,
    Result,
    TableTrigger,
    chain,
    worker,
)

HOUR = timedelta(hours=1)
CHARGING = Constraints(charging=True)
seen: list[Any] = []


@worker("kit.note")
def note(context: Context) -> dict[str, Any]:
    seen.append((context.id, context.input, context.attempt, context.triggered))
    return {"noted": context.id}


@worker("kit.later")
def later(context: Context) -> Result:
    return Result.retry(reason="no paper")


@worker("kit.bug")
def bug(context: Context) -> None:
    raise ZeroDivisionError("a bug")


@worker("kit.patient")
def patient(context: Context) -> None:
    while not context.wait(60):
        pass


@worker("kit.again")
def again(context: Context) -> None:
    harness: Harness = seen[-1]
    harness.work.enqueue(OneTimeWork("kit.note", id="successor"))


@pytest.fixture
def harness() -> Iterator[Harness]:
    seen.clear()
    with Harness() as made:
        yield made


def one_time(harness: Harness, function: Any = note, **asked: Any) -> str:
    return harness.work.enqueue(OneTimeWork(function, **asked)).ids[0]


# ------------------------------------------------------------------------------------------------ time


def test_work_runs_once_and_what_it_enqueues_runs_too(harness: Harness) -> None:
    seen.append(harness)
    first = one_time(harness, again)
    assert [one.id for one in harness.run_due()] == [first, "successor"]
    harness.assert_nothing_due()
    assert harness.run_due() == []


def test_nothing_passes_but_what_the_clock_is_moved_by(harness: Harness) -> None:
    delayed = one_time(harness, initial_delay=timedelta(seconds=60))
    begun = one_time(harness, begin_at=datetime(2026, 1, 2, 13, tzinfo=UTC))
    harness.clock.advance(timedelta(seconds=59))
    assert harness.run_due() == []
    harness.clock.advance(timedelta(seconds=1))
    assert [one.id for one in harness.run_due()] == [delayed]
    assert harness.clock.set(datetime(2026, 1, 2, 13, tzinfo=UTC)) == harness.clock.time
    assert [one.id for one in harness.run_due()] == [begun]
    with pytest.raises(Misused):
        harness.clock.advance(timedelta(seconds=-1))


def test_an_initial_delay_can_be_said_to_have_passed(harness: Harness) -> None:
    delayed = one_time(harness, initial_delay=HOUR)
    harness.set_initial_delay_met(delayed)
    assert [one.id for one in harness.run_due()] == [delayed]


def test_a_period_can_be_said_to_have_passed(harness: Harness) -> None:
    (work_id,) = harness.work.enqueue_unique_periodic("hourly", "keep", PeriodicWork(note, every=HOUR)).ids
    for times in (1, 2):
        harness.run_due()
        harness.assert_ran(work_id, times)
        assert harness.run_due() == []
        harness.set_period_delay_met(work_id)


def test_what_does_not_wait_for_a_delay_is_refused(harness: Harness) -> None:
    once, retried = one_time(harness), one_time(harness, later)
    harness.run_due()
    for refused in (once, retried):
        with pytest.raises(Misused, match="does not wait for its initial delay") as caught:
            harness.set_initial_delay_met(refused)
        assert caught.value.hint
    with pytest.raises(Misused, match="one-time work: it has no period"):
        harness.set_period_delay_met(retried)
    for method in (harness.set_initial_delay_met, harness.set_period_delay_met, harness.set_all_constraints_met):
        with pytest.raises(Unknown):
            method("nobody")


def test_with_a_clock_of_the_callers_that_clock_alone_says_what_is_due() -> None:
    clock = MovedClock()
    with Harness(clock=clock) as harness:
        delayed = one_time(harness, initial_delay=HOUR)
        (periodic,) = harness.work.enqueue_unique_periodic(
            "p", "keep", PeriodicWork(note, every=HOUR, flex=HOUR / 2)
        ).ids
        with pytest.raises(Misused, match="goes by the clock that it was given"):
            harness.set_initial_delay_met(delayed)
        with pytest.raises(Misused, match="goes by the clock that it was given"):
            harness.set_period_delay_met(periodic)
        with pytest.raises(Misused, match="goes by the clock that it was given"):
            _ = harness.clock
        clock.advance(HOUR)
        assert {one.id for one in harness.run_due()} == {delayed, periodic}


# ------------------------------------------------------------------------------------------------ constraints


def test_constrained_work_waits_until_the_test_says_that_all_of_it_holds(harness: Harness) -> None:
    one_time(harness, id="w", constraints=Constraints(network="unmetered", charging=True))
    harness.set(charging=True, connected=True)
    assert harness.run_due() == []
    assert "waits for unmetered (off by configured)" in harness.why("w")
    harness.set(unmetered=True)
    assert [one.id for one in harness.run_due()] == ["w"]


def test_labels_hold_when_they_are_said_to(harness: Harness) -> None:
    with Harness(labels={"region:eu"}) as other:
        one_time(other, id="w", constraints=Constraints(labels=frozenset({"region:eu"})))
        assert other.run_due() == []
        other.set_labels("region:eu")
        assert [one.id for one in other.run_due()] == ["w"]
    with pytest.raises(WorkUnplaceable):
        one_time(harness, constraints=Constraints(labels=frozenset({"region:eu"})))
    with pytest.raises(Misused, match="'eu' is no label"):
        harness.set_labels("eu")
    with pytest.raises(Misused, match="chargign"):
        harness.set(chargign=True)


def test_queues_may_be_the_declared_ones() -> None:
    with Harness(queues=[Queue(name="sync", tags=frozenset({"connected"}))]) as harness:
        one_time(harness, id="w", constraints=Constraints(network="connected"))
        found = harness.work.get("w")
        assert found is not None
        assert found.queue == "sync"
        with pytest.raises(WorkUnplaceable):
            one_time(harness, constraints=CHARGING)


def test_all_constraints_can_be_said_to_hold_for_one_run(harness: Harness) -> None:
    periodic = PeriodicWork(note, every=HOUR, constraints=CHARGING)
    (work_id,) = harness.work.enqueue_unique_periodic("hourly", "keep", periodic).ids
    harness.set_all_constraints_met(work_id)
    assert [one.kind for one in harness.run_due()] == ["done"]
    harness.set_period_delay_met(work_id)
    assert harness.run_due() == []


def test_a_constraint_that_is_lost_stops_the_run_and_it_runs_once(harness: Harness) -> None:
    @worker("kit.unplugged")
    def unplugged(context: Context) -> None:
        harness.set(charging=False)
        context.check()

    harness.set(charging=True)
    work_id = one_time(harness, unplugged, constraints=CHARGING)
    (ran,) = harness.run_due()
    assert (ran.kind, ran.reason) == ("stopped", "CONSTRAINT_CHARGING")
    assert harness.why(work_id).endswith("workers: harness could") is True


def test_waiting_moves_the_clock_and_a_run_that_takes_too_long_is_stopped(harness: Harness) -> None:
    one_time(harness, patient)
    (ran,) = harness.run_due()
    assert (ran.kind, ran.reason) == ("stopped", "TIMEOUT")
    assert harness.clock.time == datetime(2026, 1, 2, 12, 10, tzinfo=UTC)


@pytest.mark.parametrize("trigger", [TableTrigger("photo"), FileTrigger("/data/in")])
def test_work_that_waits_for_data_runs_when_that_has_changed(harness: Harness, trigger: Any) -> None:
    one_time(harness, id="w", constraints=Constraints(triggers=(trigger,)))
    assert harness.run_due() == []
    harness.changed(trigger)
    harness.clock.advance(timedelta(seconds=10))
    assert [one.id for one in harness.run_due()] == ["w"]
    assert seen[-1][3] == (getattr(trigger, "table", None) or str(trigger.path),)


def test_a_file_that_does_change_is_seen(harness: Harness, tmp_path: Path) -> None:
    file = tmp_path / "in"
    file.write_text("a")
    one_time(harness, id="w", constraints=Constraints(triggers=(FileTrigger(file),)))
    assert harness.run_due() == []
    file.write_text("longer")
    assert harness.run_due() == []
    harness.clock.advance(timedelta(seconds=10))
    assert [one.id for one in harness.run_due()] == ["w"]


def test_constraints_that_are_met_include_the_data(harness: Harness) -> None:
    one_time(harness, id="w", constraints=Constraints(triggers=(TableTrigger("photo"),)))
    harness.set_all_constraints_met("w")
    assert [one.id for one in harness.run_due()] == ["w"]


# ------------------------------------------------------------------------------------------------ runs


def test_one_work_is_run_alone_or_says_why_it_cannot(harness: Harness) -> None:
    one_time(harness, id="a"), one_time(harness, id="b"), one_time(harness, id="c", constraints=CHARGING)
    assert harness.run("b").state == "SUCCEEDED"
    harness.assert_state("a", "ENQUEUED")
    with pytest.raises(Misused, match="waits for charging"):
        harness.run("c")
    with pytest.raises(Unknown):
        harness.run("nobody")


def test_a_retry_waits_for_its_backoff(harness: Harness) -> None:
    work_id = one_time(harness, later, backoff=Backoff(policy="linear", initial_ms=10_000))
    for seconds in (0, 10, 20):
        harness.clock.advance(timedelta(seconds=seconds))
        assert [one.kind for one in harness.run_due()] == ["retry"]
    assert "backs off (linear, from 0:00:10)" in harness.why(work_id)


def test_what_a_function_raised_is_there_to_look_at(harness: Harness) -> None:
    work_id = one_time(harness, bug)
    (ran,) = harness.run_due()
    assert isinstance(ran.error, ZeroDivisionError)
    with pytest.raises(AssertionError, match=r"kit.bug .* failed with: .*\(it raised ZeroDivisionError\('a bug'\)\)"):
        harness.assert_state(work_id, "SUCCEEDED")


def test_a_plain_task_is_stood_for_by_anything_that_can_be_called() -> None:
    sent: list[Any] = []
    with Harness(tasks={"shop.send": lambda *args, **kwargs: sent.append((args, kwargs))}) as harness:
        work_id = harness.work.enqueue(OneTimeWork.of_task("shop.send", [7], {"copy": True})).ids[0]
        other = harness.work.enqueue(OneTimeWork.of_task("shop.other")).ids[0]
        harness.run_due()
        assert sent == [((7,), {"copy": True})]
        harness.assert_state(work_id, "SUCCEEDED")
        harness.assert_state(other, "FAILED")
        assert "knows no task 'shop.other'" in harness.why(other)


def test_work_that_enqueues_itself_for_ever_is_noticed(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backhaul.testing.harness.MOST_RUNS", 20)

    @worker("kit.endless")
    def endless(context: Context) -> None:
        harness.work.enqueue(OneTimeWork("kit.endless"))

    one_time(harness, endless)
    with pytest.raises(Misused, match="20 runs, and more are due"):
        harness.run_due()


def test_the_apps_own_database_may_be_the_one(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/app.db")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE customer (id INTEGER PRIMARY KEY)"))
    with Harness(engine) as harness:
        one_time(harness, id="w")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT state FROM backhaul_work")).scalar_one() == "ENQUEUED"
    engine.dispose()
    with pytest.raises(Misused, match="in memory"):
        Harness(create_engine("sqlite://"))


# ------------------------------------------------------------------------------------------------ assertions


def test_assertions_say_why(harness: Harness) -> None:
    harness.work.enqueue(chain(OneTimeWork(note, id="a", constraints=CHARGING)).then(OneTimeWork(note, id="b")))
    harness.assert_state("a", "ENQUEUED", "RUNNING")
    harness.assert_not_ran(note)
    for check, said in [
        (
            lambda: harness.assert_state("b", "SUCCEEDED"),
            r"kit.note b is not SUCCEEDED but BLOCKED: waits for kit.note a",
        ),
        (lambda: harness.assert_ran("a"), r"kit.note a should have run, and ran 0 times: ENQUEUED: waits for charging"),
        (lambda: harness.assert_ran(note, times=2), r"kit.note should have run 2 times, and ran 0 times: a: ENQUEUED"),
        (lambda: harness.assert_output("a", {}), r"kit.note a has the output None, not {}: ENQUEUED"),
        (lambda: harness.assert_ran(bug), r"no such work was enqueued"),
    ]:
        with pytest.raises(AssertionError, match=said):
            check()
    harness.set(charging=True)
    with pytest.raises(AssertionError, match=r"1 works are due: kit\.note a"):
        harness.assert_nothing_due()
    harness.run_due()
    harness.assert_output("a", {"noted": "a"})
    harness.assert_ran("kit.note", times=2)
    with pytest.raises(AssertionError, match="ran 1 times"):
        harness.assert_not_ran("b")


# ------------------------------------------------------------------------------------------------ one function


def test_one_function_is_called_with_what_a_run_would_give_it() -> None:
    @worker("kit.called")
    def called(context: Context) -> Result:
        said = [context.input, context.attempt, context.is_last_attempt, sorted(context.tags), context.id]
        context.checkpoint({"was": context.checkpointed, "triggered": list(context.triggered)})
        context.progress({"page": 1})
        assert not context.wait(3_600)
        return Result.success({"said": said})

    done = call(
        called,
        input={"a": 1},
        attempt=3,
        is_last_attempt=True,
        tags={"x", "y"},
        triggered=["photo"],
        checkpoint={"page": 0},
    )
    assert done.result == Result.success({"said": [{"a": 1}, 3, True, ["x", "y"], "called"]})
    assert (done.progress, done.waited) == ([{"page": 1}], 3_600)
    assert done.checkpoint == {"was": {"page": 0}, "triggered": ["photo"]}


def test_a_call_is_asked_to_stop_at_the_look_that_is_named() -> None:
    def pages(context: Context) -> dict[str, Any]:
        page = 0
        while not context.stopped:
            page += 1
        context.checkpoint({"page": page})
        return {"ignored": context.stop_reason}

    done = call(pages, stop="DEPLOY_DRAIN", stop_after=3)
    assert (done.checkpoint, done.stopped) == ({"page": 3}, "DEPLOY_DRAIN")
    assert done.result == Result.success({"ignored": "DEPLOY_DRAIN"})

    def checking(context: Context) -> None:
        context.check()
        context.progress({"page": 1})

    done = call(checking, stop="TIMEOUT", stop_after=1)
    assert (done.result, done.progress, done.stopped) == (None, [{"page": 1}], "TIMEOUT")


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (TryLater("busy", retry_after_ms=5_000), Result.retry(after=timedelta(seconds=5), reason="busy")),
        (SignInRequired("no token"), Result.retry(reason="no token")),
    ],
)
def test_an_error_that_time_heals_is_a_retry(error: Exception, result: Result) -> None:
    def raising(context: Context) -> None:
        raise error

    assert call(raising).result == result


def test_any_other_error_is_the_tests_to_see() -> None:
    with pytest.raises(ZeroDivisionError):
        call(bug)
    with pytest.raises(Misused, match="no result"):
        call(lambda context: 7)  # type: ignore[arg-type, return-value]
    with pytest.raises(Misused, match="10251 bytes"):
        call(note, input={"text": "x" * 10_240})
