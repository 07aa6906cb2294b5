"""WorkManager's behaviour, by the numbers of the conformance list: chains, data, cancelling, losses, expedited work."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from backhaul.errors import Misused
from backhaul.work import Constraints, OneTimeWork, PeriodicWork, Result, WorkRequest, chain, combine, ledger
from backhaul.work.context import Context
from tests.unit.work.desk import MINUTE, Desk, again, failing


def works(number: int, **asked: Any) -> list[OneTimeWork]:
    return [OneTimeWork(f"shop.step{at}", **asked) for at in range(number)]


def states(desk: Desk, *of: OneTimeWork) -> list[str]:
    return [desk.state(work) for work in of]


def test_scenario_56_what_waits_for_a_failure_fails_and_never_runs(desk: Desk) -> None:
    a, b = works(2)
    desk.works.enqueue(chain(a).then(b))
    desk.run(a, failing)
    assert (states(desk, a, b), desk.row(a).output) == (["FAILED", "FAILED"], {"partly": True})
    assert desk.run(b).kind == "not-claimed"
    assert desk.ran == [a.id]


def test_scenario_57_what_waits_for_a_cancelled_work_is_cancelled(desk: Desk) -> None:
    a, b, c = works(3)
    desk.works.enqueue(chain(a).then(b).then(c))
    assert desk.works.cancel(a.id) == 3
    assert states(desk, a, b, c) == ["CANCELLED"] * 3
    assert desk.row(c).last_error == "cancelled by the app, with what it waited for"


def test_scenario_57_what_waits_for_a_succeeded_and_another_is_cancelled_with_the_succeeded(desk: Desk) -> None:
    a, b, c, d = works(4)
    desk.works.enqueue(chain(a, b).then(c).then(d))
    desk.run(a)
    assert desk.works.cancel(a.id) == 2
    assert states(desk, a, b, c, d) == ["SUCCEEDED", "ENQUEUED", "CANCELLED", "CANCELLED"]
    assert desk.works.cancel_tag("shop.step0") == 0, "by tag only what is unfinished counts"


def test_scenario_60_a_parents_output_goes_before_the_works_own_input(desk: Desk) -> None:
    a, b = OneTimeWork("shop.a"), OneTimeWork("shop.b", input={"k": 1, "own": True})
    desk.works.enqueue(chain(a).then(b))
    desk.run(a, lambda context: {"k": 2})
    seen: list[Any] = []
    desk.run(b, lambda context: seen.append(context.input))
    assert seen == [{"k": 2, "own": True}]


def test_scenario_62_input_output_and_progress_of_more_than_10_kib_are_refused(desk: Desk) -> None:
    much = {"text": "x" * 10_240}
    with pytest.raises(Misused, match="input"):
        OneTimeWork("shop.mail", input=much)
    one, other = works(2)
    desk.works.enqueue([one, other])
    desk.run(one, lambda context: Result.success(much))
    assert (desk.state(one), desk.row(one).output) == ("FAILED", None)
    desk.run(other, lambda context: context.progress(much))
    assert (desk.state(other), desk.row(other).progress) == ("FAILED", None)


def test_scenario_62_a_merged_input_of_more_than_10_kib_fails_the_work_unrun(desk: Desk) -> None:
    a, b, c = works(3)
    desk.works.enqueue(chain(a, b).then(c))
    desk.run(a, lambda context: {"a": "x" * 6_000})
    desk.run(b, lambda context: {"b": "x" * 6_000})
    desk.run(c)
    assert desk.ran == [a.id, b.id]
    assert desk.state(c) == "FAILED"
    assert "merged input" in str(desk.row(c).last_error)


def test_scenario_63_a_circle_is_refused_and_nothing_is_stored(desk: Desk) -> None:
    a, b = works(2)
    with pytest.raises(Misused, match="circle"):
        combine(chain(a).then(b), chain(b).then(a))
    circle = [
        ledger.Entry(WorkRequest(task="shop.a", id="a"), "sync", parents=("b",)),
        ledger.Entry(WorkRequest(task="shop.b", id="b"), "sync", parents=("a",)),
    ]
    with desk.database.writing() as connection, pytest.raises(Misused, match="circle"):
        ledger.enqueue_all(connection, circle, now=desk.now)
    assert desk.works.query() == []


def test_scenario_63_a_chain_that_cannot_be_stored_whole_leaves_no_row(desk: Desk) -> None:
    a, b = works(2, tags={"step"})
    with desk.database.writing() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON backhaul_work_tag WHEN (SELECT count(*) FROM backhaul_work_tag) = 1"
            " BEGIN SELECT RAISE(ABORT, 'no more'); END"
        )
    with pytest.raises(IntegrityError, match="no more"):
        desk.works.enqueue(chain(a).then(b))
    with desk.database.reading() as connection:
        for table in ("backhaul_work", "backhaul_work_parent", "backhaul_work_tag"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() == 0


def test_scenario_64_cancel_by_tag_ends_the_unfinished_works_with_that_tag(desk: Desk) -> None:
    over, waiting, other = OneTimeWork("shop.a", tags={"x"}), OneTimeWork("shop.a", tags={"x"}), OneTimeWork("shop.b")
    desk.works.enqueue([over, waiting, other])
    desk.run(over)
    assert desk.works.cancel_tag("x") == 1
    assert states(desk, over, waiting, other) == ["SUCCEEDED", "CANCELLED", "ENQUEUED"]
    assert desk.works.cancel_tag("shop.b") == 1
    assert desk.state(other) == "CANCELLED"


def test_scenario_65_cancel_all_ends_all_and_its_time_is_kept(desk: Desk) -> None:
    a, b, c = works(3)
    desk.works.enqueue(chain(a).then(b))
    desk.works.enqueue(c)
    with desk.database.writing() as connection:
        ledger.enqueue(connection, WorkRequest(task="backhaul.push", id="push"), queue="sync", now=desk.now)
    assert desk.works.last_cancel_all() is None
    desk.clock.advance(MINUTE)
    assert desk.works.cancel_all() == 3
    assert states(desk, a, b, c) == ["CANCELLED"] * 3
    assert desk.works.last_cancel_all() == desk.now
    assert desk.state("push") == "ENQUEUED"


def test_scenario_66_a_query_is_any_of_a_list_and_all_of_the_lists(desk: Desk) -> None:
    red, blue, green = (OneTimeWork("shop.a", tags={tag}) for tag in ("red", "blue", "green"))
    waiting = OneTimeWork("shop.a", tags={"red"})
    desk.works.enqueue([red, blue, green, waiting])
    for work in (red, blue, green):
        desk.run(work, failing)
    found = desk.works.query(tags=["red", "blue"], states=["FAILED"])
    assert {work.id for work in found} == {red.id, blue.id}


def test_scenario_68_what_died_with_its_worker_runs_again(desk: Desk) -> None:
    work = OneTimeWork("shop.mail")
    desk.works.enqueue(work)
    run = desk.claim(work)
    with desk.database.writing() as connection:
        ledger.renew(connection, run, now=desk.now, lease_ms=MINUTE, progress={"sent": 5})
        ledger.keep_checkpoint(connection, run, {"at": 5})
    desk.clock.advance(MINUTE)
    with desk.database.writing() as connection:
        ledger.recover(connection, desk.now)
    row = desk.row(work)
    assert (row.state, row.attempt, row.progress, row.checkpoint) == ("ENQUEUED", 1, None, {"at": 5})
    seen: list[tuple[int, Any]] = []
    assert desk.run(work, lambda context: seen.append((context.attempt, context.checkpointed))).kind == "done"
    assert seen == [(1, {"at": 5})]


def test_scenario_69_what_the_broker_forgot_is_found_in_the_ledger(desk: Desk) -> None:
    a, b, c = works(3)
    desk.works.enqueue(chain(a).then(b))
    desk.works.enqueue(c)
    with desk.database.writing() as connection:
        ledger.mark_rung(connection, desk.due(), desk.now)
    # The messages are gone: no queue has any, and a while later everything is rung anew.
    desk.clock.advance(5_000)
    while desk.run_due():
        desk.clock.advance(5_000)
    assert states(desk, a, b, c) == ["SUCCEEDED"] * 3


@pytest.mark.parametrize(
    "asked",
    [
        {"constraints": Constraints(charging=True)},
        {"constraints": Constraints(battery_not_low=True)},
        {"constraints": Constraints(device_idle=True)},
        {"initial_delay": timedelta(seconds=1)},
    ],
    ids=str,
)
def test_scenario_73_expedited_work_waits_for_nothing_but_a_network(asked: dict[str, Any]) -> None:
    with pytest.raises(Misused, match="expedited"):
        OneTimeWork("shop.mail", expedited="run_as_ordinary", **asked)


def test_scenario_73_periodic_work_cannot_be_expedited() -> None:
    with pytest.raises(Misused, match="expedited"):
        PeriodicWork("shop.tidy", every=timedelta(hours=1), expedited="drop")  # type: ignore[arg-type]


def test_scenario_74_a_retry_of_expedited_work_is_ordinary(desk: Desk) -> None:
    ordinary, urgent = OneTimeWork("shop.mail"), OneTimeWork("shop.mail", expedited="run_as_ordinary")
    desk.works.enqueue(ordinary)
    desk.clock.advance(1)
    desk.works.enqueue(urgent)
    assert [work.id for work in desk.due()] == [urgent.id, ordinary.id]
    assert (desk.row(urgent).queue, desk.row(urgent).expedited) == ("first", True)
    desk.run(urgent, again)
    row = desk.row(urgent)
    assert (row.queue, row.expedited, row.state) == ("sync", False, "ENQUEUED")
    seen: list[str] = []

    def of_which_queue(context: Context) -> None:
        seen.append(context.work.queue)

    desk.clock.advance(MINUTE)
    desk.run(urgent, of_which_queue)
    assert seen == ["sync"]
