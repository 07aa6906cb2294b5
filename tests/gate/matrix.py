"""Every pool on one broker: a condition flips while its work waits, is fetched, runs; the broker goes and comes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from backhaul.work.ledger import Work
from backhaul.work.placing import STOP_REASONS
from tests.gate.conftest import PAIRS
from tests.gate.line import Line
from tests.gate.stage import ALONE, FLIPPED, PREFETCHING, SECONDS, Stage, staged
from tests.waiting import eventually

FOLLOWED_SECONDS = 5.0  # the worker looks once a second; on a busy machine, a look may take its time
HEARD_SECONDS = 6.0  # a run looks twice a second
MOST_SECONDS = 300.0  # of a run that a test releases


@contextmanager
def staged_open(pool: str, broker: str, line: Line | None) -> Iterator[Stage]:
    # More than any test's messages: one may have been rung for twice, and the second message be on its way still.
    options = ("--prefetch-multiplier", "16") if pool in PREFETCHING else ()
    with staged(f"{pool}-{broker}", pool, line, *options) as made:
        yield made


class Matrix:
    """For each broker a file has a class of this, and a `stage` for each pool: two processes can share them."""

    @pytest.fixture(autouse=True)
    def all_is_open(self, stage: Stage) -> None:
        """A test that has failed leaves its stage as it was."""
        stage.open_all()

    def test_a_condition_flips_while_its_work_waits(self, stage: Stage) -> None:
        for condition in of_this_pair(stage):
            closing, opening = flips_while_its_work_waits(stage, condition)
            assert max(closing, opening) < FOLLOWED_SECONDS
            print(f"{stage.name} {condition}: closed after {closing:.2f} s, open after {opening:.2f} s")

    @pytest.mark.chaos
    def test_every_condition_flips_while_its_work_waits(self, stage: Stage) -> None:
        for condition in ALONE:
            flips_while_its_work_waits(stage, condition)

    def test_what_was_fetched_and_has_not_begun_is_given_back(self, stage: Stage) -> None:
        """One run keeps the worker busy; what was fetched beside it goes back, and the run goes on."""
        crew = stage.crew
        busy = stage.enqueue("slow", "connected", seconds=MOST_SECONDS)
        eventually(lambda: crew.work(busy).state == "RUNNING", SECONDS, "it runs")
        fetched = [stage.enqueue("note", "charging", word=f"fetched-{number}") for number in range(3)]
        if stage.pool in PREFETCHING:
            eventually(lambda: stage.waiting("charging") == 0, SECONDS, "they are fetched")
        crew.set(charging=False)
        eventually(lambda: crew.is_open(stage.queue("charging")) is False, SECONDS, "the queue is closed")
        if stage.pool in PREFETCHING:
            eventually(lambda: stage.waiting("charging") == 3, SECONDS, "they are given back")
            assert crew.work(busy).state == "RUNNING", "at once, and not when there is room"
        crew.release(busy)
        crew.settled(busy, timeout=30)
        crew.settled(stage.enqueue("note", "connected", word="between"))
        assert [(one.state, one.attempt) for one in map(crew.work, fetched)] == [("ENQUEUED", 0)] * 3
        crew.set(charging=True)
        assert {crew.settled(one).attempt for one in fetched} == {1}

    def test_what_was_fetched_does_not_begin_in_a_pause_whatever_it_demands(self, stage: Stage) -> None:
        """Two conditions are lost at once, and one of them is what all work implies. The run that keeps the worker busy
        does not hear."""
        crew = stage.crew
        busy = stage.enqueue("deaf", "connected", seconds=MOST_SECONDS)
        eventually(lambda: crew.work(busy).state == "RUNNING", SECONDS, "it runs")
        queues = ("charging", "not_paused", "not_paused")
        fetched = [stage.enqueue("note", one, word=f"paused-{number}") for number, one in enumerate(queues)]
        if stage.pool in PREFETCHING:
            eventually(lambda: not any(map(stage.waiting, queues)), SECONDS, "they are fetched")
        crew.set(charging=False, not_paused=False)
        eventually(lambda: not any(crew.is_open(stage.queue(one)) for one in FLIPPED), SECONDS, "all is closed")
        # More than them, where what opened before was rung for twice, and the busy worker has not taken that yet.
        eventually(lambda: sum(map(stage.waiting, queues[:2])) >= 3, SECONDS, "they are given back")
        crew.release(busy, when_stopped=True)
        assert crew.settled(busy, "ENQUEUED", timeout=30).stop_reason == "USER"
        crew.cancel(busy)
        eventually(lambda: stage.gate()["consumed"] == [], SECONDS, "it is let go of all queues")
        assert [(one.state, one.attempt) for one in map(crew.work, fetched)] == [("ENQUEUED", 0)] * 3
        crew.set(not_paused=True)
        assert {crew.settled(one).attempt for one in fetched[1:]} == {1}
        assert crew.work(fetched[0]).attempt == 0
        crew.set(charging=True)
        assert crew.settled(fetched[0]).attempt == 1

    def test_a_run_whose_condition_is_lost_stops_and_goes_on_later(self, stage: Stage) -> None:
        condition = of_this_pair(stage)[0]
        heard = a_run_stops(stage, condition, asks=False)
        print(f"{stage.name} {condition}: heard of it after {heard:.2f} s")

    @pytest.mark.chaos
    def test_a_run_stops_whichever_condition_is_lost(self, stage: Stage) -> None:
        for condition in FLIPPED:
            a_run_stops(stage, condition)

    def test_what_flips_while_the_broker_is_gone_is_so_when_it_is_back(self, stage: Stage) -> None:
        crew = stage.crew
        stage.flip("unmetered", False)
        stage.cut()
        crew.set(unmetered=True, not_roaming=False)
        eventually(lambda: crew.is_open(stage.queue("unmetered")), SECONDS, "it is judged all the same")
        eventually(lambda: crew.is_open(stage.queue("not_roaming")) is False, SECONDS, "it is judged all the same")
        stage.mend()
        waits, runs = (stage.keep("note", one, word=f"after-{one}") for one in ("not_roaming", "unmetered"))
        # A message that is written to a connection which was cut is lost without a word; a Beat would ring again.
        eventually(lambda: _has_run(stage, runs), 30, "what is open runs", pause=1)
        eventually(lambda: _said(stage, waits) and stage.waiting("not_roaming"), 30, "the other message stays", pause=1)
        assert crew.work(waits).state == "ENQUEUED"
        consumed = stage.gate()["consumed"]
        assert stage.queue("not_roaming") not in consumed
        assert stage.queue("unmetered") in consumed
        crew.set(not_roaming=True)
        crew.settled(waits)

    def test_a_closed_queue_that_is_added_by_remote_control_is_let_go_of(self, stage: Stage) -> None:
        crew, queue = stage.crew, stage.queue("storage_not_low")
        stage.flip("storage_not_low", False)
        work = stage.enqueue("note", "storage_not_low", word="added")
        crew.app.control.add_consumer(queue, destination=["one@crew"], reply=True)
        eventually(lambda: queue not in stage.gate()["consumed"], SECONDS, "it is let go of")
        eventually(lambda: stage.waiting("storage_not_low") == 1, SECONDS, "what came is given back")
        assert (crew.work(work).state, crew.work(work).attempt) == ("ENQUEUED", 0)
        received = crew.log("worker-one").count(f"[{work.task_id}] received")
        assert received <= 2, "the broker does not send again what is given back"
        stage.flip("storage_not_low", True)
        crew.settled(work)

    def test_the_state_of_the_gate_is_shown_by_inspect_and_told_as_an_event(self, stage: Stage) -> None:
        queue = stage.queue("battery_not_low")
        with stage.crew.events() as events:
            stage.flip("battery_not_low", False)
            told = eventually(lambda: [one for one in events if one["type"] == "backhaul-gate"], SECONDS, "it is told")[
                -1
            ]
        assert [one["name"] for one in told["queues"] if not one["open"]] == [queue]
        shown = stage.gate()
        (closed,) = (one for one in shown["queues"] if not one["open"])
        assert closed["name"] == queue
        assert closed["reason"].startswith("battery_not_low is off")
        assert queue not in shown["consumed"]
        statistics = stage.crew.app.control.inspect(["one@crew"], timeout=5).stats()
        assert statistics["one@crew"]["gate"][queue].startswith("closed: battery_not_low is off")
        stage.flip("battery_not_low", True)

    def test_a_worker_that_is_restarted_never_consumes_what_is_closed(self, stage: Stage) -> None:
        crew = stage.crew
        stage.flip("not_roaming", False)
        stage.end_worker()
        work = stage.enqueue("note", "not_roaming", word="before")
        stage.begin_worker()
        crew.settled(stage.enqueue("note", "device_idle", word="meanwhile"))
        assert stage.queue("not_roaming") not in stage.gate()["consumed"]
        assert stage.waiting("not_roaming") == 1
        assert f"[{work.task_id}] received" not in crew.log("worker-one")
        stage.flip("not_roaming", True)
        assert crew.settled(work).attempt == 1


def of_this_pair(stage: Stage) -> tuple[str, ...]:
    """Two of the conditions, other ones for each pair; all of them: `test_every_condition`, in make chaos."""
    at = [f"{pool}-{broker}" for pool, broker in PAIRS].index(stage.name)
    return ALONE[at % len(ALONE)], ALONE[(at + 3) % len(ALONE)]


def flips_while_its_work_waits(stage: Stage, condition: str) -> tuple[float, float]:
    crew, other = stage.crew, next(one for one in ALONE if one != condition)
    all_open = {stage.queue(one) for one in FLIPPED}
    eventually(lambda: set(stage.gate()["consumed"]) >= all_open, SECONDS, "what opened before is taken up")
    before = stage.touched()
    closing = stage.flip(condition, False)
    waits, flows = (stage.enqueue("note", one, word=f"{one}-{time.time()}") for one in (condition, other))
    crew.settled(flows)
    assert (crew.work(waits).state, crew.work(waits).attempt) == ("ENQUEUED", 0)
    eventually(lambda: stage.waiting(condition) == 1, SECONDS, "its message stays in the broker")
    opening = stage.flip(condition, True)
    done = crew.settled(waits)
    assert done.attempt == 1
    assert [note for note in crew.notes() if note.startswith(done.input["word"])] == [f"{done.input['word']} one@crew"]
    own = stage.queue(condition)
    assert stage.touched() == before | {own: before.get(own, 0) + 2}, "no other queue was touched"
    return closing, opening


def a_run_stops(stage: Stage, condition: str, *, asks: bool = True) -> float:
    """asks: whether the run itself requires what is lost, and not only its queue."""
    crew = stage.crew
    work = stage.enqueue("counting", condition, asks=asks, to=1_000_000)
    eventually(lambda: (crew.work(work).checkpoint or {}).get("at", 0) > 2, SECONDS, "it runs, and keeps how far it is")
    began = time.time()
    crew.set(**{condition: False})
    stopped = crew.settled(work, "ENQUEUED")
    assert (stopped.stop_reason, stopped.attempt) == (STOP_REASONS.get(condition, "DEVICE_STATE"), 1)
    at = (stopped.checkpoint or {})["at"]
    (told,) = (note for note in crew.notes() if note.startswith("stopped") and float(note.split()[1]) > began)
    eventually(lambda: crew.is_open(stage.queue(condition)) is False, SECONDS, "the queue is closed")
    crew.set(**{condition: True})  # a flip that is faster than a look is left to Beat
    eventually(lambda: f"from {at} one@crew" in crew.notes(), SECONDS, "it goes on from there")
    crew.cancel(work)
    eventually(lambda: crew.work(work).state == "CANCELLED", SECONDS, "it has ended")
    crew.settled(stage.enqueue("note", "device_idle" if condition != "device_idle" else "charging", word="after it"))
    heard = float(told.split()[1]) - began
    assert heard < HEARD_SECONDS
    return heard


def _has_run(stage: Stage, work: Work) -> bool:
    return stage.crew.work(work).state == "SUCCEEDED" or (_said(stage, work) and False)


def _said(stage: Stage, work: Work) -> bool:
    try:
        stage.crew.ring(work.ring)
    except Exception:  # a connection that was lost meanwhile, in the words of either client
        return False
    return True
