"""What a function returns, raises and keeps, and what a message costs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from backhaul.database import Database
from backhaul.errors import Stopped
from backhaul.work import Result, Work, hooks, ledger, on_exception
from backhaul.work.context import Context
from backhaul.work.request import WorkRequest
from tests.unit.work.bench import Bench, never, raising


@pytest.fixture
def bench(database: Database, clock: Any) -> Bench:
    return Bench(database, clock)


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """The statements of the block, without those that begin and end transactions."""
    said: list[str] = []

    def hear(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("BEGIN"):
            said.append(statement)

    event.listen(database.engine, "before_cursor_execute", hear)
    try:
        yield said
    finally:
        event.remove(database.engine, "before_cursor_execute", hear)


def test_a_plain_work_costs_a_claim_and_a_settling(bench: Bench) -> None:
    work = bench.enqueue()
    with counted(bench.database) as said:
        assert bench.run(work, lambda context: None).kind == "done"
    assert [one.split()[0] for one in said] == ["UPDATE", "UPDATE"]


def test_a_work_with_constraints_costs_one_read_more(bench: Bench) -> None:
    work = bench.enqueue(requires=frozenset({"connected"}))
    with counted(bench.database) as said:
        assert bench.run(work, lambda context: None).kind == "done"
    assert [one.split()[0] for one in said] == ["UPDATE", "SELECT", "UPDATE"]


@pytest.mark.parametrize("returned", [{"n": 1}, Result.success({"n": 1})])
def test_what_is_returned_is_the_output(bench: Bench, returned: Any) -> None:
    work = bench.enqueue()
    assert bench.run(work, lambda context: returned).kind == "done"
    assert bench.row(work).output == {"n": 1}


def test_a_failure_keeps_its_output_and_its_reason(bench: Bench) -> None:
    work = bench.enqueue()
    settled = bench.run(work, lambda context: Result.failure({"line": 3}, reason="line 3 is no date"))
    assert (settled.kind, settled.reason) == ("failed", "line 3 is no date")
    row = bench.row(work)
    assert (row.state, row.output, row.last_error) == ("FAILED", {"line": 3}, "line 3 is no date")


def test_a_retry_waits_for_its_backoff_and_for_what_it_asks(bench: Bench) -> None:
    work = bench.enqueue()
    settled = bench.run(work, lambda context: Result.retry(after=timedelta(minutes=5), reason="the till is open"))
    assert (settled.kind, settled.reason, settled.due_at) == ("retry", "the till is open", bench.clock.now() + 300_000)
    bench.clock.advance(300_000)
    assert bench.run(work, lambda context: Result.retry()).due_at == bench.clock.now() + 60_000


def test_what_is_no_result_is_a_failure_that_says_so(bench: Bench) -> None:
    body: Any = lambda context: 5  # noqa: E731
    settled = bench.run(bench.enqueue(), body)
    assert (settled.kind, settled.reason) == ("failed", "what it returned is no result: int")


def test_the_last_attempt_is_known(bench: Bench) -> None:
    work, seen = bench.enqueue(max_attempts=2), []

    def body(context: Context) -> Result:
        seen.append((context.attempt, context.is_last_attempt))
        return Result.retry()

    assert bench.run(work, body).kind == "retry"
    bench.clock.advance(30_000)
    assert bench.run(work, body).kind == "failed"
    assert seen == [(0, False), (1, True)]


def test_a_function_knows_its_id_and_its_tags_and_its_own_name_is_one(bench: Bench) -> None:
    work = bench.enqueue(tags=frozenset({"shop"}))

    def body(context: Context) -> None:
        assert (context.id, context.tags) == (work.id, {"shop", "backhaul.upload"})

    assert bench.run(work, body).kind == "done"


# checkpoints


def test_a_checkpoint_is_on_disk_at_once_and_outlives_a_crash(bench: Bench) -> None:
    work = bench.enqueue()

    def dies(context: Context) -> None:
        context.checkpoint({"at": 1})
        assert bench.row(work).checkpoint == {"at": 1}
        context.checkpoint({"at": 2})
        bench.clock.advance(60_000)
        with bench.database.writing() as connection:  # as Beat does when the worker is dead
            (lost,) = ledger.recover(connection, bench.clock.now())
        assert (lost.checkpoint, lost.progress) == ({"at": 2}, None)

    bench.run(work, dies)
    assert bench.run(work, lambda context: {"from": context.checkpointed}).kind == "done"
    row = bench.row(work)
    assert (row.output, row.checkpoint) == ({"from": {"at": 2}}, None)


def test_a_checkpoint_outlives_a_stop_and_may_be_made_after_it(bench: Bench) -> None:
    work = bench.enqueue()

    def body(context: Context) -> None:
        with bench.database.writing() as connection:
            ledger.request_stop(connection, work.id, "USER")
        context.look()
        assert (context.stopped, context.stop_reason) == (True, "USER")
        context.checkpoint({"at": 7})
        assert context.checkpointed == {"at": 7}

    assert bench.run(work, body).kind == "stopped"
    assert bench.row(work).checkpoint == {"at": 7}


def test_a_checkpoint_is_forgotten_when_it_is_said_and_when_a_period_closes(bench: Bench) -> None:
    work = bench.enqueue(interval_ms=60_000)

    def body(context: Context) -> None:
        context.checkpoint({"at": 1})
        context.checkpoint(None)
        assert context.checkpointed is None
        context.checkpoint({"at": 2})

    assert bench.run(work, body).kind == "done"
    assert bench.row(work).checkpoint is None


def test_a_run_whose_work_is_cancelled_keeps_no_checkpoint(bench: Bench) -> None:
    work = bench.enqueue()

    def body(context: Context) -> None:
        bench.cancel(work)
        with pytest.raises(Stopped):
            context.checkpoint({"at": 1})

    assert bench.run(work, body).kind == "cancelled"
    assert bench.row(work).checkpoint is None


def test_progress_is_kept_when_a_run_is_stopped_and_not_when_it_is_done(bench: Bench) -> None:
    stopped, done = bench.enqueue(), bench.enqueue()

    def body(context: Context) -> None:
        context.progress({"page": 1})
        raise Stopped("USER")

    bench.run(stopped, body)
    assert bench.row(stopped).progress == {"page": 1}
    bench.run(done, lambda context: context.progress({"page": 1}))
    assert bench.row(done).progress is None


# messages that find nothing to claim


def test_a_message_for_cancelled_work_is_told_so(bench: Bench) -> None:
    work = bench.enqueue()
    bench.cancel(work)
    settled = bench.run(work, never)
    assert (settled.kind, settled.reason) == ("cancelled", "cancelled by the test")


def test_work_that_has_expired_is_not_begun_and_ends(bench: Bench) -> None:
    work = bench.enqueue(expires_after_ms=1_000)
    bench.clock.advance(1_000)
    settled = bench.run(work, never)
    row = bench.row(work)
    assert (settled.kind, row.state, row.stop_reason) == ("cancelled", "CANCELLED", "EXPIRED")


# chains


def chained(bench: Bench, parent: Work, **asked: Any) -> Work:
    request = WorkRequest(task="shop.child", **asked)
    with bench.database.writing() as connection:
        ledger.enqueue_all(
            connection, [ledger.Entry(request=request, queue="sync", parents=(parent.id,))], now=bench.clock.now()
        )
        found = ledger.get(connection, str(request.id))
    assert found is not None
    return found


def test_the_outputs_of_what_it_waited_for_come_to_its_input(bench: Bench) -> None:
    first = bench.enqueue()
    second = chained(bench, first, input={"k": 1, "own": True})
    bench.run(first, lambda context: {"k": 2})
    assert bench.run(bench.row(second), lambda context: context.input).kind == "done"
    assert bench.row(second).output == {"k": 2, "own": True}


def test_outputs_that_do_not_go_together_fail_the_work_and_the_function_is_not_called(bench: Bench) -> None:
    told: list[tuple[str, str]] = []

    @on_exception
    def hear(work: Work, error: Exception) -> None:
        told.append((work.id, type(error).__name__))

    first = bench.enqueue()
    second = chained(bench, first, input={"k": 1}, merger="array_creating")
    bench.run(first, lambda context: {"k": "one"})
    settled = bench.run(bench.row(second), never)
    assert (settled.kind, bench.row(second).state) == ("failed", "FAILED")
    assert "the values of 'k'" in settled.reason
    assert told == [(second.id, "Misused")]
    hooks._hooks.clear()


def test_62_outputs_that_are_too_large_together_fail_the_work_and_run_nothing(bench: Bench) -> None:
    first = bench.enqueue()
    second = chained(bench, first, input={"own": "x" * 6_000})
    bench.run(first, lambda context: {"other": "x" * 6_000})
    settled = bench.run(bench.row(second), never)
    assert (settled.kind, bench.row(second).state) == ("failed", "FAILED")
    assert "merged input" in settled.reason


def test_a_hook_that_raises_is_told_in_the_log_and_no_more(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    @on_exception
    def wrong(work: Work, error: Exception) -> None:
        raise KeyError("oh")

    with caplog.at_level(logging.ERROR, logger="backhaul"):
        assert bench.run(bench.enqueue(), raising(ValueError("oh"))).kind == "failed"
    assert "wrong was told of a failure, and raised KeyError" in caplog.text
    hooks._hooks.clear()
