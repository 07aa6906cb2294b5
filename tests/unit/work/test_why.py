"""One line for every state that work can be in, as `why` says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Connection

from backhaul.bell import Queue
from backhaul.database import Database
from backhaul.errors import Unknown
from backhaul.work import QueueState, Work, Worker, WorkRequest, conditions, ledger
from backhaul.work.conditions import effective
from backhaul.work.constraints import FileTrigger, TableTrigger
from backhaul.work.ledger import Circumstances, Entry, Limits
from backhaul.work.why import why

T = 1_767_355_200_000  # 2026-01-02T12:00:00Z
MEDIA = Queue(name="media", tags=frozenset({"connected", "unmetered"}))


def worker(
    *,
    open: bool,  # noqa: A002 - the field's name
    name: str = "w1",
    queue: str = "media",
    node: str = "",
    reason: str = "unmetered is off (configured)",
) -> Worker:
    state = QueueState(name=queue, open=open, reason="" if open else reason, since=T - 60_000)
    return Worker(name=name, node=node, pid=1, started_at=T, seen_at=T, queues=(state,))


def claimed(connection: Connection, work: Work, now: int) -> Work:
    run = ledger.claim(connection, work.id, 0, worker="w1", now=now, lease_ms=60_000)
    assert run is not None
    return run


class Desk:
    def __init__(self, database: Database) -> None:
        self.database = database

    def enqueue(self, **asked: Any) -> Work:
        with self.database.writing() as connection:
            request = WorkRequest(**{"task": "backhaul.upload", "requires": MEDIA.tags, **asked})
            return ledger.enqueue(connection, request, queue="media", now=T)

    def enqueue_after(self, *parents: str, work_id: str, name: str | None = None) -> None:
        with self.database.writing() as connection:
            entry = Entry(WorkRequest(task="shop.send", id=work_id), "media", parents=parents)
            ledger.enqueue_all(connection, [entry], now=T, name=name)

    def claim(self, work: Work, now: int = T) -> Work:
        with self.database.writing() as connection:
            return claimed(connection, work, now)

    def get(self, work_id: str) -> Work:
        with self.database.reading() as connection:
            work = ledger.get(connection, work_id)
        assert work is not None
        return work

    def ask(
        self,
        work: Work,
        *,
        now: int = T,
        queues: Sequence[Queue] = (MEDIA,),
        workers: Sequence[Worker] = (),
        node: str = "",
        most_losses: int | None = None,
    ) -> str:
        with self.database.reading() as connection:
            held = effective({}, {}, conditions.overrides(connection, now, node))
            return why(connection, work.id, held, frozenset(), queues, workers, now, node=node, most_losses=most_losses)


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def test_a_closed_constraint_is_named_with_its_source_and_the_tries_so_far(desk: Desk) -> None:
    work = desk.enqueue()
    run = desk.claim(work)
    with desk.database.writing() as connection:
        ledger.retry(connection, run, now=T, error="no answer")
        conditions.set_condition(connection, "unmetered", False, now=T + 1_000)
    assert desk.ask(work, now=T + 2_000) == (
        "ENQUEUED: waits for unmetered (off by override since 2026-01-02T12:00:01Z) on queue media; tried 1 time; "
        "next try when it opens, and not before 2026-01-02T12:00:30Z; last error: no answer"
    )
    assert "next try when it opens; last error" in desk.ask(work, now=T + 30_000)


def test_work_that_is_not_due_says_when_it_will_be_and_what_time_that_is(desk: Desk) -> None:
    work = desk.enqueue(initial_delay_ms=5_000)
    assert desk.ask(work) == (
        "ENQUEUED: waits for its time, 0:00:05 after it was enqueued, on queue media; next try at 2026-01-02T12:00:05Z"
    )
    work = desk.enqueue(begin_at=T + 60_000)
    assert desk.ask(work) == (
        "ENQUEUED: waits for its time, when it may begin, on queue media; next try at 2026-01-02T12:01:00Z"
    )


def test_periodic_work_says_its_period_and_an_override(desk: Desk) -> None:
    work = desk.enqueue(interval_ms=3_600_000)
    run = desk.claim(work)
    with desk.database.writing() as connection:
        ledger.succeed(connection, run, now=T)
    assert desk.ask(work) == (
        "ENQUEUED: waits for its time, once in 1:00:00, on queue media; next try at 2026-01-02T13:00:00Z"
    )
    with desk.database.writing() as connection:
        ledger.override_next_run(connection, work.id, T + 1_800_000, now=T)
    assert desk.ask(work) == (
        "ENQUEUED: waits for its time, said by override: 2026-01-02T12:30:00Z, on queue media; "
        "next try at 2026-01-02T12:30:00Z"
    )


def test_a_backoff_says_until_when_after_which_error_and_which_try(desk: Desk) -> None:
    work = desk.enqueue()
    run = desk.claim(work)
    with desk.database.writing() as connection:
        ledger.retry(connection, run, now=T, error="no answer")
    assert desk.ask(work) == (
        "ENQUEUED: backs off (exponential, from 0:00:30) on queue media; tried 1 time; "
        "next try at 2026-01-02T12:00:30Z; last error: no answer"
    )


def test_a_backoff_after_losses_says_how_many_and_when_they_are_the_end(desk: Desk) -> None:
    work, now = desk.enqueue(task="shop.send"), T
    for _ in range(3):
        desk.claim(work, now)
        with desk.database.writing() as connection:
            (lost,) = ledger.recover(connection, now + 60_000)
        now = max(lost.due_at, now + 60_000)
    said = desk.ask(work, now=now - 1, most_losses=5)
    after = "ENQUEUED: backs off after 3 losses in a row"
    deaths = "none by the death of its own process alone (fails after 5 such deaths, or 20 losses)"
    assert said.startswith(f"{after}, {deaths} on queue media; tried 3 times; next try at ")
    assert desk.ask(work, now=now - 1).startswith(f"{after} on queue media; ")


def test_a_backoff_after_a_stop_is_called_one(desk: Desk) -> None:
    work = desk.enqueue(backoff_on_stop=True)
    run = desk.claim(work)
    with desk.database.writing() as connection:
        ledger.stop(connection, run, now=T, reason="CONSTRAINT_CHARGING")
    assert desk.ask(work) == (
        "ENQUEUED: backs off after a stop (exponential, from 0:00:30) on queue media; tried 1 time; "
        "next try at 2026-01-02T12:00:30Z; last stop: CONSTRAINT_CHARGING"
    )


@pytest.mark.parametrize("verb", ["postpone", "move"])
def test_a_claim_that_is_taken_back_leaves_what_was_said_of_the_run_before(desk: Desk, verb: str) -> None:
    work = desk.enqueue()
    with desk.database.writing() as connection:
        ledger.stop(connection, claimed(connection, work, T), now=T, reason="CONSTRAINT_CHARGING")
        run = claimed(connection, work, T + 9)
        assert (run.stop_reason, run.started_at) == (None, T + 9)
        said: dict[str, Any] = {"due_at": T + 9} if verb == "postpone" else {"queue": "media"}
        back = getattr(ledger, verb)(connection, run, now=T + 9, **said)
    assert (back.stop_reason, back.started_at, back.attempt) == ("CONSTRAINT_CHARGING", T, 1)
    assert "last stop: CONSTRAINT_CHARGING" in desk.ask(work, now=T + 9)


def test_a_chain_says_which_parents_it_waits_for_and_how_they_are(desk: Desk) -> None:
    first, second = desk.enqueue(id="first"), desk.enqueue(id="second")
    desk.enqueue_after("first", "second", work_id="child")
    child = desk.get("child")
    assert desk.ask(child) == ("BLOCKED: waits for backhaul.upload first (ENQUEUED), backhaul.upload second (ENQUEUED)")
    run = desk.claim(first)
    with desk.database.writing() as connection:
        ledger.succeed(connection, run, now=T)
    desk.claim(second)
    assert desk.ask(child) == "BLOCKED: waits for backhaul.upload second (RUNNING); 1 of 2 have succeeded"


def test_what_is_appended_says_that_its_name_holds_it_back(desk: Desk) -> None:
    desk.enqueue(id="first")
    desk.enqueue_after("first", work_id="next", name="nightly")
    assert desk.ask(desk.get("next")) == (
        "BLOCKED: held back by the name nightly: waits for backhaul.upload first (ENQUEUED)"
    )


def test_dependents_of_what_failed_or_was_cancelled_name_it(desk: Desk) -> None:
    first = desk.enqueue(id="first")
    desk.enqueue_after("first", work_id="child")
    run = desk.claim(first)
    with desk.database.writing() as connection:
        ledger.fail(connection, run, now=T, error="no paper")
    assert desk.ask(first) == "FAILED: since 2026-01-02T12:00:00Z; tried 1 time; failed with: no paper"
    assert desk.ask(desk.get("child")).startswith("FAILED: since 2026-01-02T12:00:00Z; it waited for first")


def test_data_triggers_are_named_and_so_is_what_has_changed(desk: Desk) -> None:
    asked = {"triggers": (TableTrigger("photo"), FileTrigger("/data/in")), "trigger_update_ms": 10_000}
    work = desk.enqueue(**asked, trigger_most_ms=120_000)
    assert desk.ask(work) == "ENQUEUED: waits for a change of file /data/in, table photo"
    with desk.database.writing() as connection:
        ledger.touch_tables(connection, [], T + 1_000, by_sync=["photo"])
    assert desk.ask(work, now=T + 2_000) == (
        "ENQUEUED: has seen a change of table photo (last at 2026-01-02T12:00:01Z); "
        "runs at 2026-01-02T12:00:11Z if it stays still"
    )


def test_a_file_that_does_not_answer_is_named(desk: Desk) -> None:
    asked = {"triggers": (FileTrigger("/data/in"), FileTrigger("/mnt/list")), "trigger_update_ms": 10_000}
    work = desk.enqueue(**asked, trigger_most_ms=120_000)
    for since, said in (
        (T, "; file /mnt/list has not answered since 2026-01-02T12:00:00Z: is its file system there?"),
        (None, ""),
    ):
        with desk.database.writing() as connection:
            ledger.mark_unanswered(connection, [FileTrigger("/mnt/list")], since)
        assert desk.ask(work) == f"ENQUEUED: waits for a change of file /data/in, file /mnt/list{said}"


def test_work_that_expires_says_when_and_what_expired_says_so(desk: Desk) -> None:
    work = desk.enqueue(expires_after_ms=60_000)
    assert "; expires at 2026-01-02T12:01:00Z unless it has begun" in desk.ask(work)
    assert "; expired at 2026-01-02T12:01:00Z, and is cancelled next" in desk.ask(work, now=T + 60_000)
    with desk.database.writing() as connection:
        ledger.expire(connection, T + 60_000)
    assert desk.ask(work) == "CANCELLED: since 2026-01-02T12:01:00Z; it had not begun in its time; as EXPIRED"


def test_a_queue_that_nobody_serves_is_said_so(desk: Desk) -> None:
    work = desk.enqueue()
    due = "due since 2026-01-02T12:00:00Z"
    assert desk.ask(work) == f"ENQUEUED: no live worker serves queue media; {due}"
    assert desk.ask(work, queues=()) == f"ENQUEUED: queue media is no longer declared in backhaul.toml; {due}"


def test_each_live_worker_says_whether_it_could_run_it_and_what_it_lacks(desk: Desk) -> None:
    work = desk.enqueue()
    due = "due since 2026-01-02T12:00:00Z"
    shut = "w1 cannot since 2026-01-02T11:59:00Z (unmetered is off (configured))"
    assert desk.ask(work, workers=[worker(open=False)]) == (
        f"ENQUEUED: queue media is closed on every worker that serves it; {due}; workers: {shut}"
    )
    others = [worker(open=True, name="w2"), worker(open=True, name="w3", queue="sync")]
    assert desk.ask(work, workers=[worker(open=False), *others]) == (
        f"ENQUEUED: waits for a free worker on queue media; {due}; "
        f"workers: {shut}, w2 could since 2026-01-02T11:59:00Z, w3 does not serve media"
    )
    crowd = [worker(open=True, name=f"w{number}") for number in range(9)]
    assert desk.ask(work, workers=crowd).endswith(", w4 could since 2026-01-02T11:59:00Z, and 4 more")


NETWORK = "unmetered is off (NetworkManager: wwan0 is metered, since 2026-01-02T11:59:00Z)"
FLEET = (
    worker(open=False, name="media", node="attic", reason=NETWORK),
    worker(open=True, name="sync", node="attic", queue="sync"),
    worker(open=False, name="media", node="kiosk", reason="this machine is not labelled gpu:yes"),
    worker(open=True, name="sync", node="till", queue="sync"),
    worker(open=True, name="rest", node="till", queue="maintenance"),
)


def test_each_node_is_named_with_what_it_lacks(desk: Desk) -> None:
    assert desk.ask(desk.enqueue(), workers=FLEET, node="office") == (
        "ENQUEUED: queue media is closed on every worker that serves it; due since 2026-01-02T12:00:00Z; workers: "
        f"media on attic cannot since 2026-01-02T11:59:00Z ({NETWORK}), "
        "media on kiosk cannot since 2026-01-02T11:59:00Z (this machine is not labelled gpu:yes), "
        "sync on attic does not serve media, sync, rest on till do not serve media"
    )


def test_of_many_nodes_that_all_lack_something_as_many_as_twenty_are_named(desk: Desk) -> None:
    crowd = [worker(open=False, name="w", node=f"n{number:02}") for number in range(22)]
    said = desk.ask(desk.enqueue(), workers=crowd)
    assert said.count(" cannot ") == 20
    assert said.endswith(", and 2 more")


def test_what_this_machine_lacks_is_no_reason_where_another_could_or_where_nobody_works_here(desk: Desk) -> None:
    work = desk.enqueue()
    with desk.database.writing() as connection:
        conditions.set_condition(connection, "unmetered", False, now=T, expires_at=T + 60_000, node="office")
    lacks = "waits for unmetered (off by override since 2026-01-02T12:00:00Z, until 2026-01-02T12:01:00Z)"
    here, there = worker(open=True, name="a", node="office"), worker(open=True, name="b", node="attic")
    assert desk.ask(work, node="office").startswith(f"ENQUEUED: {lacks} on queue media;")
    assert desk.ask(work, node="office", workers=FLEET).startswith("ENQUEUED: queue media is closed on every worker")
    said = desk.ask(work, node="office", workers=[here, *FLEET])
    assert said.startswith(f"ENQUEUED: {lacks} on office on queue media;")
    assert "a on office cannot (unmetered is off (override, since 2026-01-02T12:00:00Z))" in said
    said = desk.ask(work, node="office", workers=[here, there])
    assert said.startswith("ENQUEUED: waits for a free worker on queue media;")
    assert "a on office cannot (unmetered is off (override, since 2026-01-02T12:00:00Z)), b on attic could" in said


def test_running_work_names_its_worker_and_a_lost_one(desk: Desk) -> None:
    work = desk.enqueue()
    desk.claim(work)
    assert desk.ask(work) == "RUNNING: on w1 since 2026-01-02T12:00:00Z, try 1"
    with desk.database.writing() as connection:
        ledger.renew(connection, desk.get(work.id), now=T, lease_ms=60_000, progress={"done": 3})
        ledger.request_stop(connection, work.id, "USER")
    assert desk.ask(work, now=T + 60_000) == (
        'RUNNING: on w1 since 2026-01-02T12:00:00Z, try 1; progress {"done":3}; asked to stop: USER; '
        "its lease passed at 2026-01-02T12:01:00Z: its worker is not heard of; it will be taken back"
    )


def test_cancelled_work_says_by_whom_and_whether_it_was_running(desk: Desk) -> None:
    waited, ran = desk.enqueue(), desk.enqueue()
    desk.claim(ran)
    with desk.database.writing() as connection:
        for work in (waited, ran):
            ledger.cancel_by_id(connection, work.id, now=T, by="a person")
    assert desk.ask(waited) == "CANCELLED: since 2026-01-02T12:00:00Z; cancelled by a person"
    assert desk.ask(ran) == (
        "CANCELLED: since 2026-01-02T12:00:00Z; tried 1 time; cancelled by a person; as CANCELLED_BY_APP"
    )


def test_work_that_was_dropped_for_the_quota_says_so(desk: Desk) -> None:
    request = WorkRequest(task="shop.send", id="eager", expedited="drop")
    with desk.database.writing() as connection:
        none_left = Circumstances(limits=Limits(expedited_runs=0))
        ledger.enqueue_all(connection, [Entry(request, "media")], now=T, circumstances=none_left)
    said = "CANCELLED: since 2026-01-02T12:00:00Z; the hour's expedited works are used up; as QUOTA"
    assert desk.ask(desk.get("eager")) == said


def test_work_that_has_succeeded_says_since_when(desk: Desk) -> None:
    run = desk.claim(desk.enqueue())
    with desk.database.writing() as connection:
        ledger.succeed(connection, run, now=T)
    assert desk.ask(run) == "SUCCEEDED: since 2026-01-02T12:00:00Z; tried 1 time"


def test_the_last_stop_is_told(desk: Desk) -> None:
    work = desk.enqueue()
    run = desk.claim(work)
    with desk.database.writing() as connection:
        ledger.stop(connection, run, now=T, reason="CONSTRAINT_CHARGING")
    assert desk.ask(work).endswith("; last stop: CONSTRAINT_CHARGING")


def test_unknown_work_is_an_error_that_says_how_that_can_be(desk: Desk) -> None:
    kept_nothing = "a name that is in use keeps nothing"
    with desk.database.reading() as connection, pytest.raises(Unknown, match=kept_nothing) as caught:
        why(connection, "nobody", effective({}, {}, {}), frozenset(), [], [], T)
    assert caught.value.hint
