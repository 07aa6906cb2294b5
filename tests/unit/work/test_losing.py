"""Work whose worker dies while it runs: it runs again, ever later, and not for ever."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backhaul.errors import DatabaseBusy
from backhaul.work import (
    Constraints,
    OneTimeWork,
    PeriodicWork,
    TableTrigger,
    Work,
    WorkRequest,
    chain,
    ledger,
    roster,
)
from backhaul.work import run as journey
from backhaul.work.context import Context
from backhaul.work.row import NEVER
from tests.unit.work.desk import HOUR, MINUTE, Desk
from tests.unit.work.test_results import counted

LEASE = 20_000
DAY = 24 * HOUR


def lose(desk: Desk, work_id: str, *, alone: bool = True, most: int = 5) -> Work:
    """It is begun as soon as it is due, and its process dies; alone: its worker lives on."""
    desk.clock.advance(max(0, desk.row(work_id).due_at - desk.now))
    beat(desk, processes=[7, 8])
    desk.claim(work_id, lease_ms=LEASE, process=7)
    desk.clock.advance(LEASE - 1)
    if alone:
        beat(desk, processes=[8, 9])
    desk.clock.advance(1)
    with desk.database.writing() as connection:
        (lost,) = ledger.recover(connection, desk.now, most_losses=most)
    return lost


def beat(desk: Desk, *, node: str = "", processes: Sequence[int] | None = ()) -> None:
    with desk.database.writing() as connection:
        roster.beat(connection, node=node, name="w1", pid=1, queues=(), now=desk.now, processes=processes)


def recovered(desk: Desk, *, most: int = 1, limit: int = 9) -> list[Work]:
    with desk.database.writing() as connection:
        return ledger.recover(connection, desk.now, most_losses=most, limit=limit)


def enqueued(desk: Desk) -> str:
    return desk.works.enqueue(OneTimeWork("shop.a")).ids[0]


def test_the_first_loss_costs_the_lease_alone_and_each_one_after_it_twice_as_long(desk: Desk) -> None:
    work = enqueued(desk)
    waits = [lose(desk, work, alone=False).due_at - desk.now for _ in range(4)]
    assert waits[0] == -LEASE
    for wait, most in zip(waits[1:], (30_000, 60_000, 120_000), strict=True):
        assert most // 2 <= wait <= most
    assert lose(desk, work, alone=False).attempt == 5  # none is given back


def test_what_is_lost_together_does_not_run_together_for_ever(desk: Desk) -> None:
    works = [enqueued(desk) for _ in range(8)]
    for _ in range(2):
        desk.clock.advance(MINUTE)
        for work in works:
            desk.claim(work, lease_ms=LEASE)
        desk.clock.advance(LEASE)
        with desk.database.writing() as connection:
            ledger.recover(connection, desk.now)
    assert len({desk.row(work).due_at for work in works}) > 1


def test_a_function_whose_process_dies_five_times_in_a_row_has_failed_and_so_has_what_waits_for_it(desk: Desk) -> None:
    work, after = OneTimeWork("shop.a"), OneTimeWork("shop.b")
    desk.works.enqueue(chain(work).then(after))
    for _ in range(4):
        assert lose(desk, work.id).state == "ENQUEUED"
    lost = lose(desk, work.id)
    assert (lost.state, lost.attempt) == ("FAILED", 5)
    assert desk.state(after) == "FAILED"
    said = "WORKER_LOST, 5 in a row while it ran: the last time its process died, and its worker lived on"
    assert desk.works.why(work.id).endswith(f"tried 5 times; failed with: {said}")


def test_how_many_losses_are_the_end_is_the_operators_affair(desk: Desk) -> None:
    assert lose(desk, enqueued(desk), most=1).state == "FAILED"


def test_only_the_deaths_of_its_own_process_are_counted_for_that_end(desk: Desk) -> None:
    work = enqueued(desk)
    for alone in (False, False, False, False, True):
        lost = lose(desk, work, alone=alone)
    assert (lost.state, lost.losses, lost.crashes) == ("ENQUEUED", 5, 1)
    for alone in (True, False, True, True):
        assert lose(desk, work, alone=alone).state == "ENQUEUED"
    assert lose(desk, work).state == "FAILED"


def test_a_run_that_was_asked_to_stop_and_was_ended_before_it_had_is_no_loss(desk: Desk) -> None:
    work = enqueued(desk)
    for alone in (True, False) * 12:
        desk.clock.advance(1)
        beat(desk, processes=[7, 8])
        run = desk.claim(work, lease_ms=LEASE, process=7)
        with desk.database.writing() as connection:
            ledger.renew(connection, run, now=desk.now, lease_ms=LEASE, stopping="DEPLOY_DRAIN")
        desk.clock.advance(LEASE - 1)
        if alone:
            beat(desk, processes=[8, 9])
        desk.clock.advance(1)
        (lost,) = recovered(desk)
        assert (lost.state, lost.losses, lost.crashes, lost.stop_reason) == ("ENQUEUED", 0, 0, "WORKER_LOST")
        assert lost.due_at <= desk.now


def test_a_run_that_goes_on_after_it_was_asked_to_stop_says_so_in_its_row(desk: Desk) -> None:
    work, ending, seen = enqueued(desk), [False], []

    def goes_on(context: Context) -> None:
        ending[0] = True
        for _ in range(2):
            desk.clock.advance(5_000)
            context.look()
            seen.append(desk.row(work).stop_requested)

    desk.run(work, goes_on, ending=lambda: ending[0])
    assert seen == [None, "DEPLOY_DRAIN"]
    assert (desk.row(work).state, desk.row(work).stop_requested) == ("ENQUEUED", None)


def test_a_run_that_is_heard_of_after_it_was_taken_for_lost_is_no_loss(desk: Desk) -> None:
    work = enqueued(desk)
    lose(desk, work, alone=False)
    desk.clock.advance(MINUTE)

    def sleeps(_context: Context) -> None:  # its machine does
        desk.clock.advance(HOUR)
        (lost,) = recovered(desk, most=5)
        assert lost.losses == 2

    for _ in range(25):
        desk.clock.advance(max(0, desk.row(work).due_at - desk.now))
        assert desk.run(work, sleeps).reason == "LEASE_EXPIRED"
        assert (desk.state(work), desk.row(work).losses) == ("ENQUEUED", 1)
    desk.clock.advance(max(0, desk.row(work).due_at - desk.now))
    desk.run(work)
    assert desk.state(work) == "SUCCEEDED"


def test_workers_that_die_with_their_work_end_it_only_after_days(desk: Desk) -> None:
    work, began = enqueued(desk), desk.now
    for _ in range(19):
        assert lose(desk, work, alone=False).state == "ENQUEUED"
    assert desk.now - began > DAY
    lost = lose(desk, work, alone=False)
    assert (lost.state, lost.last_error) == (
        "FAILED",
        "WORKER_LOST, 20 in a row while it ran: the last time its worker died with it",
    )


def test_a_worker_that_was_started_anew_has_not_outlived_the_run(desk: Desk) -> None:
    work = enqueued(desk)
    desk.claim(work, lease_ms=LEASE, process=7)
    desk.clock.advance(LEASE)
    with desk.database.writing() as connection:
        roster.beat(connection, name="w1", pid=2, queues=(), now=desk.now, processes=[8])
    (lost,) = recovered(desk)
    assert lost.state == "ENQUEUED"


def test_nor_has_one_of_the_same_name_on_another_node(desk: Desk) -> None:
    work = enqueued(desk)
    for node in ("attic", "kiosk"):
        beat(desk, node=node, processes=[7])
    desk.claim(work, lease_ms=LEASE, process=7, node="kiosk")
    desk.clock.advance(LEASE)
    beat(desk, node="attic", processes=[8])
    (lost,) = recovered(desk)
    assert (lost.state, lost.node, lost.process) == ("ENQUEUED", None, None)
    desk.claim(work, lease_ms=LEASE, process=7, node="attic")
    desk.clock.advance(LEASE)
    beat(desk, node="attic", processes=[8])
    (lost,) = recovered(desk)
    assert lost.state == "FAILED"


@pytest.mark.parametrize("process", [None, 1, 7])
@pytest.mark.parametrize("processes", [None, [7]])
def test_a_run_that_was_not_settled_though_its_process_is_there_is_no_process_that_died(
    desk: Desk, process: int | None, processes: list[int] | None
) -> None:
    work = enqueued(desk)
    for _ in range(3):
        desk.clock.advance(max(0, desk.row(work).due_at - desk.now))
        beat(desk, processes=processes)
        desk.claim(work, lease_ms=LEASE, process=process)
        desk.clock.advance(LEASE - 1)
        beat(desk, processes=processes)
        desk.clock.advance(1)
        (lost,) = recovered(desk)
        assert lost.state == "ENQUEUED"
    desk.clock.advance(max(0, lost.due_at - desk.now))
    beat(desk, processes=processes)
    desk.claim(work, lease_ms=LEASE, process=process)
    desk.clock.advance(LEASE)
    beat(desk, processes=processes)
    (lost,) = recovered(desk)
    assert (lost.state, lost.last_error) == (
        "FAILED",
        "WORKER_LOST, 4 in a row while it ran: the last time its worker lived on, and it was not settled in its time",
    )


def test_a_run_whose_settling_fails_each_time_has_not_failed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journey, "SETTLE_AGAIN_SECONDS", 0.0)
    work = enqueued(desk)

    def busy(*_: Any, **__: Any) -> Work:
        raise DatabaseBusy("another program is writing the same rows")

    for _ in range(5):
        desk.clock.advance(max(0, desk.row(work).due_at - desk.now))
        beat(desk, processes=[7])
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "succeed", busy)
            with pytest.raises(DatabaseBusy):
                desk.run(work, process=7)
        desk.clock.advance(MINUTE - 1)
        beat(desk, processes=[7])
        desk.clock.advance(1)
        recovered(desk, most=5)
    assert (desk.state(work), len(desk.ran)) == ("ENQUEUED", 5)


def test_a_look_takes_back_so_many_at_once_with_as_many_statements_for_each_number(desk: Desk) -> None:
    works = [enqueued(desk) for _ in range(24)]
    for work in works:
        desk.claim(work, lease_ms=LEASE)
    desk.clock.advance(LEASE)
    with counted(desk.database) as few:
        assert len(recovered(desk, limit=2)) == 2
    with counted(desk.database) as many:
        assert len(recovered(desk, limit=20)) == 20
    assert len(many) == len(few)
    assert len(recovered(desk)) == 2
    assert recovered(desk) == []
    assert [(row.state, row.losses, row.stop_reason) for row in map(desk.row, works)] == [
        ("ENQUEUED", 1, "WORKER_LOST")
    ] * 24


def test_what_fails_by_its_losses_fails_in_as_many_statements_for_each_number(desk: Desk) -> None:
    def lost_at_once(number: int) -> tuple[list[str], list[str]]:
        firsts, hourly = [OneTimeWork("shop.a") for _ in range(number)], timedelta(hours=1)
        periodic = [PeriodicWork("shop.c", every=hourly) for _ in range(number)]
        triggers = Constraints(triggers=[TableTrigger("customer")])
        triggered = PeriodicWork("shop.d", every=hourly, constraints=triggers)
        desk.works.enqueue([*(chain(one).then(OneTimeWork("shop.b")) for one in firsts), *periodic, triggered])
        with desk.database.writing() as connection:
            ledger.touch_tables(connection, [], desk.now, by_sync=["customer"])
        for one in (*firsts, *periodic, triggered):
            desk.clock.advance(max(0, desk.row(one).due_at - desk.now))
            desk.claim(one, lease_ms=LEASE)
        desk.clock.advance(LEASE)
        with counted(desk.database) as said:
            assert len(recovered(desk, limit=100, most=0)) == 2 * number + 1
        assert (desk.row(triggered).due_at, desk.row(triggered).triggered) == (NEVER, ())
        return said, [one.id for one in firsts]

    (few, first), (many, others) = lost_at_once(2), lost_at_once(20)
    assert len(many) == len(few)
    assert [row.state for row in desk.works.query(tags=["shop.a", "shop.b"])] == ["FAILED"] * 44
    said = {row.last_error for row in desk.works.query(tags=["shop.b"])}
    assert said == {f"it waited for {one}, which failed" for one in (*first, *others)}
    for row in desk.works.query(tags=["shop.c"]):
        assert (row.state, row.runs, row.due_at, row.losses) == ("ENQUEUED", 1, row.enqueued_at + HOUR, 0)
        assert str(row.last_error).startswith("WORKER_LOST, 1 in a row while it ran")


@pytest.mark.parametrize("most", [1, 5], ids=["the last loss", "the first loss"])
def test_an_override_that_was_said_while_it_ran_is_when_lost_work_runs_next(desk: Desk, most: int) -> None:
    (work,) = desk.works.enqueue(PeriodicWork("shop.a", every=timedelta(hours=1))).ids
    tomorrow = desk.now + DAY
    beat(desk, processes=[7])
    desk.claim(work, lease_ms=LEASE, process=7)
    desk.works.override_next_run(work, datetime.fromtimestamp(tomorrow / 1000, UTC))
    desk.clock.advance(LEASE)
    beat(desk, processes=[8])
    (lost,) = recovered(desk, most=most)
    assert (lost.state, lost.due_at, lost.override_at) == ("ENQUEUED", tomorrow, tomorrow)


@pytest.mark.parametrize("verb", ["retry", "stop"])
def test_a_run_that_settles_begins_the_count_anew(desk: Desk, verb: str) -> None:
    work = enqueued(desk)
    for _ in range(4):
        lose(desk, work)
    desk.clock.advance(HOUR)
    said = {"error": "not yet"} if verb == "retry" else {"reason": "DEPLOY_DRAIN"}
    assert desk.settle(getattr(ledger, verb), desk.claim(work), **said).losses == 0
    assert lose(desk, work).state == "ENQUEUED"


def test_a_run_that_did_not_begin_does_not(desk: Desk) -> None:
    work = enqueued(desk)
    lose(desk, work)
    assert desk.settle(ledger.postpone, desk.claim(work), due_at=desk.now).losses == 1


def test_of_periodic_work_the_period_ends_as_with_a_failure(desk: Desk) -> None:
    (work,) = desk.works.enqueue(PeriodicWork("shop.a", every=timedelta(hours=1))).ids
    for _ in range(5):
        lost = lose(desk, work)
    assert (lost.state, lost.attempt, lost.losses, lost.runs) == ("ENQUEUED", 0, 0, 1)
    assert (lost.last_outcome, lost.due_at) == ("failure", desk.now + HOUR)
    assert "WORKER_LOST, 5 in a row" in desk.works.why(work)


def test_syncs_own_work_is_tried_for_ever_and_at_once(desk: Desk) -> None:
    with desk.database.writing() as connection:
        ledger.enqueue(connection, WorkRequest(task="backhaul.upload", id="u"), queue="sync", now=desk.now)
    for _ in range(30):
        lost = lose(desk, "u")
        assert (lost.state, lost.losses) == ("ENQUEUED", 0)
        assert lost.due_at < desk.now < NEVER
