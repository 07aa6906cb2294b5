"""WorkManager's behaviour, by the numbers of the conformance list: unique work, and what an update changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from backhaul.work import OneTimeWork, PeriodicWork
from backhaul.work.context import Context
from tests.unit.work.desk import HOUR, Desk, done, failing


@pytest.mark.parametrize("running", [False, True], ids=["ENQUEUED", "RUNNING"])
def test_scenario_43_keep_stores_nothing_beside_a_namesake(desk: Desk, running: bool) -> None:
    old, new = OneTimeWork("shop.mail"), OneTimeWork("shop.mail")
    desk.works.enqueue_unique("mail", "keep", old)
    if running:
        desk.claim(old)
    receipt = desk.works.enqueue_unique("mail", "keep", new)
    assert (receipt.kept, receipt.ids) == (True, (old.id,))
    assert desk.works.get(new.id) is None


def test_scenario_45_replace_stops_the_old_run_and_the_new_one_runs(desk: Desk) -> None:
    """The old id stays known, as CANCELLED and without the name (docs/work.md): who asks why is told."""
    old, new = OneTimeWork("shop.mail"), OneTimeWork("shop.mail")
    desk.works.enqueue_unique("mail", "replace", old)
    heard: list[str | None] = []

    def replaced_while_it_runs(context: Context) -> None:
        desk.works.enqueue_unique("mail", "replace", new)
        context.look()
        heard.append(context.stop_reason)

    assert desk.run(old, replaced_while_it_runs).kind == "cancelled"
    assert heard == ["CANCELLED_BY_APP"]
    row = desk.row(old)
    assert (row.state, row.name, row.stop_reason) == ("CANCELLED", None, "CANCELLED_BY_APP")
    assert [work.id for work in desk.works.query(names=["mail"])] == [new.id]
    assert desk.run(new).kind == "done"


def test_scenario_46_append_waits_for_a_run_and_follows_its_success(desk: Desk) -> None:
    old, new = OneTimeWork("shop.mail"), OneTimeWork("shop.mail")
    desk.works.enqueue_unique("mail", "append", old)

    def appended_while_it_runs(context: Context) -> None:
        desk.works.enqueue_unique("mail", "append", new)
        assert desk.state(new) == "BLOCKED"

    desk.run(old, appended_while_it_runs)
    assert desk.state(new) == "ENQUEUED"


def test_scenario_47_append_onto_a_failed_leaf_is_failed_at_birth(desk: Desk) -> None:
    old, new = OneTimeWork("shop.mail"), OneTimeWork("shop.mail")
    desk.works.enqueue_unique("mail", "append", old)
    desk.run(old, failing)
    desk.works.enqueue_unique("mail", "append", new)
    assert desk.state(new) == "FAILED"


def test_scenario_47_append_onto_a_cancelled_leaf_is_cancelled_at_birth(desk: Desk) -> None:
    old, new = OneTimeWork("shop.mail"), OneTimeWork("shop.mail")
    desk.works.enqueue_unique("mail", "append", old)
    desk.works.cancel(old.id)
    desk.works.enqueue_unique("mail", "append", new)
    assert desk.state(new) == "CANCELLED"


@pytest.mark.parametrize("failed_first", [True, False])
def test_scenario_47_append_onto_both_is_failed_at_birth(desk: Desk, failed_first: bool) -> None:
    from backhaul.work import chain

    first, second, new = OneTimeWork("shop.a"), OneTimeWork("shop.b"), OneTimeWork("shop.c")
    desk.works.enqueue_unique("both", "append", chain(first, second))
    failed, cancelled = (first, second) if failed_first else (second, first)
    desk.run(failed, failing)
    desk.works.cancel(cancelled.id)
    desk.works.enqueue_unique("both", "append", chain(new).then(OneTimeWork("shop.d")))
    assert [work.state for work in desk.works.query(names=["both"], tags=["shop.c", "shop.d"])] == ["FAILED", "FAILED"]


def test_scenario_50_an_update_keeps_the_period_that_has_begun(desk: Desk) -> None:
    old = PeriodicWork("shop.tidy", every=timedelta(hours=8))
    desk.works.enqueue_unique_periodic("tidy", "update", old)
    desk.run(old)
    desk.clock.advance(3 * HOUR)
    new = PeriodicWork("shop.tidy", every=timedelta(hours=8), tags={"new"})
    assert desk.works.enqueue_unique_periodic("tidy", "update", new).ids == (old.id,)
    row = desk.row(old)
    assert (row.due_at, row.generation, row.tags) == (desk.now + 5 * HOUR, 1, ("new",))
    assert desk.works.get(new.id) is None


def test_scenario_51_an_update_while_running_counts_from_the_next_run(desk: Desk) -> None:
    old = PeriodicWork("shop.tidy", every=timedelta(hours=8), input={"depth": 1})
    desk.works.enqueue_unique_periodic("tidy", "update", old)
    seen = []

    def updated_while_it_runs(context: Context) -> None:
        asked = replace(old, every=timedelta(hours=1), input={"depth": 2})
        assert desk.works.update(asked) == "APPLIED_FOR_NEXT_RUN"
        seen.append(context.input["depth"])

    assert desk.run(old, updated_while_it_runs).kind == "done"
    assert desk.row(old).due_at == desk.now + HOUR
    desk.clock.advance(HOUR)
    desk.run(old, lambda context: seen.append(context.input["depth"]))
    assert seen == [1, 2]


def test_scenario_53_cancel_and_reenqueue_begins_the_period_anew(desk: Desk) -> None:
    old, new = (PeriodicWork("shop.tidy", every=timedelta(hours=8)) for _ in range(2))
    desk.works.enqueue_unique_periodic("tidy", "cancel_and_reenqueue", old)
    desk.run(old, failing)
    desk.clock.advance(HOUR)
    assert desk.works.enqueue_unique_periodic("tidy", "cancel_and_reenqueue", new).ids == (new.id,)
    assert desk.state(old) == "CANCELLED"
    row = desk.row(new)
    assert (row.enqueued_at, row.due_at, row.attempt, row.runs) == (desk.now, desk.now, 0, 0)
    assert desk.run(new, done).kind == "done"


def test_scenario_55_an_update_replaces_the_tags(desk: Desk) -> None:
    old = OneTimeWork("shop.mail", tags={"old", "both"})
    desk.works.enqueue(old)
    assert desk.works.update(replace(old, tags={"new", "both"})) == "APPLIED_IMMEDIATELY"
    assert desk.row(old).tags == ("both", "new")
    assert [len(desk.works.query(tags=[tag])) for tag in ("old", "both", "new")] == [0, 1, 1]
