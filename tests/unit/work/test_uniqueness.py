"""Names: every policy over every state of what has the name already."""

from __future__ import annotations

from datetime import timedelta

import pytest

from backhaul.errors import Misused, Stopped, Unknown
from backhaul.work import OneTimeWork, PeriodicWork, WorkRequest, chain, combine, ledger
from backhaul.work.ledger import OneTimePolicy
from tests.unit.work.desk import Desk, done, failing


def one(name: str = "mail", **asked: object) -> OneTimeWork:
    return OneTimeWork(f"shop.{name}", **asked)  # type: ignore[arg-type]


def tidy(**asked: object) -> PeriodicWork:
    return PeriodicWork("shop.tidy", every=timedelta(hours=1), **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["keep", "replace", "append", "append_or_replace"])
def test_a_free_name_is_taken(desk: Desk, policy: OneTimePolicy) -> None:
    a, b = one("a"), one("b")
    receipt = desk.works.enqueue_unique("it", policy, chain(a).then(b))
    assert (receipt.kept, receipt.ids) == (False, (a.id, b.id))
    found = {row.id: row.state for row in desk.works.query(names=["it"])}
    assert found == {a.id: "ENQUEUED", b.id: "BLOCKED"}


@pytest.mark.parametrize("policy", ["keep", "replace", "append_or_replace"])
@pytest.mark.parametrize("body", [done, failing], ids=["SUCCEEDED", "FAILED"])
def test_finished_work_makes_room(desk: Desk, policy: OneTimePolicy, body: object) -> None:
    old, new = one(), one()
    desk.works.enqueue_unique("it", policy, old)
    desk.run(old, body)  # type: ignore[arg-type]
    state = desk.state(old)
    assert desk.works.enqueue_unique("it", policy, new).ids == (new.id,)
    assert (desk.state(new), desk.state(old)) == ("ENQUEUED", state)


def test_keep_protects_a_chain_as_long_as_something_of_it_can_run(desk: Desk) -> None:
    a, b, new = one("a"), one("b"), one()
    desk.works.enqueue_unique("it", "keep", chain(a).then(b))
    assert desk.works.enqueue_unique("it", "keep", new).ids == (a.id,)
    desk.run(a)
    assert desk.works.enqueue_unique("it", "keep", new).ids == (b.id,)
    desk.run(b)
    assert desk.works.enqueue_unique("it", "keep", new).kept is False


def test_replace_ends_the_whole_chain(desk: Desk) -> None:
    a, b, new = one("a"), one("b"), one()
    desk.works.enqueue_unique("it", "keep", chain(a).then(b))
    desk.works.enqueue_unique("it", "replace", new)
    assert [desk.state(work) for work in (a, b, new)] == ["CANCELLED", "CANCELLED", "ENQUEUED"]
    assert desk.row(a).last_error == "cancelled by work of the same name"


def test_replace_by_the_same_id_leaves_the_old_run_nothing_to_settle(desk: Desk) -> None:
    work = one(tags={"x"})
    desk.works.enqueue_unique("it", "replace", work)
    run = desk.claim(work)
    desk.works.enqueue_unique("it", "replace", work)
    row = desk.row(work)
    assert (row.state, row.generation, row.attempt, row.tags) == ("ENQUEUED", 1, 0, ("x",))
    with pytest.raises(Stopped):
        desk.settle(ledger.succeed, run)
    assert desk.run(work).kind == "done"


def test_what_waits_for_an_id_that_is_begun_anew_is_let_go_by_the_new_work(desk: Desk) -> None:
    again, other, last = one("a"), one("b"), one("c")
    desk.works.enqueue_unique("it", "replace", again)
    desk.works.enqueue(combine(chain(again), chain(other)).then(last))
    desk.run(again)
    desk.works.enqueue_unique("it", "replace", again)
    desk.run(other)
    assert desk.state(last) == "BLOCKED"
    desk.run(again)
    assert desk.state(last) == "ENQUEUED"


def test_append_waits_for_all_that_is_last(desk: Desk) -> None:
    a, b, c, last = (one(name) for name in "abcd")
    desk.works.enqueue_unique("it", "append", chain(a).then(b, c))
    desk.works.enqueue_unique("it", "append", last)
    desk.run(a)
    desk.run(b, lambda context: {"b": 1})
    assert desk.state(last) == "BLOCKED"
    desk.run(c, lambda context: {"c": 2})
    seen: list[object] = []
    desk.run(last, lambda context: seen.append(context.input))
    assert seen == [{"b": 1, "c": 2}]


def test_append_to_what_has_succeeded_begins_at_once_with_its_output(desk: Desk) -> None:
    old, new = one(), one()
    desk.works.enqueue_unique("it", "append", old)
    desk.run(old, lambda context: {"k": 1})
    desk.works.enqueue_unique("it", "append", new)
    seen: list[object] = []
    desk.run(new, lambda context: seen.append(context.input))
    assert (seen, desk.row(new).parents) == ([{"k": 1}], 1)


def test_append_or_replace_starts_anew_after_a_failure_and_stops_what_is_left(desk: Desk) -> None:
    a, b, new = one("a"), one("b"), one()
    desk.works.enqueue_unique("it", "append_or_replace", chain(a, b))
    desk.run(a, failing)
    run = desk.claim(b)
    desk.works.enqueue_unique("it", "append_or_replace", new)
    assert (desk.state(new), desk.row(new).parents) == ("ENQUEUED", 0)
    with desk.database.reading() as connection:
        assert ledger.asked_to_stop(connection, run) == "CANCELLED_BY_APP"


def test_append_or_replace_appends_while_nothing_has_failed(desk: Desk) -> None:
    old, new = one(), one()
    desk.works.enqueue_unique("it", "append_or_replace", old)
    desk.works.enqueue_unique("it", "append_or_replace", new)
    assert desk.state(new) == "BLOCKED"


def test_nothing_is_appended_to_periodic_work(desk: Desk) -> None:
    desk.works.enqueue_unique_periodic("it", "keep", tidy())
    with pytest.raises(Misused, match="periodic"):
        desk.works.enqueue_unique("it", "append", one())
    assert len(desk.works.query()) == 1


def test_work_cannot_wait_for_what_is_nowhere(desk: Desk) -> None:
    entry = ledger.Entry(WorkRequest(task="shop.a"), "sync", parents=("nobody",))
    with desk.database.writing() as connection, pytest.raises(Unknown, match="nobody"):
        ledger.enqueue_all(connection, [entry], now=desk.now)


def test_periodic_keep_keeps(desk: Desk) -> None:
    old = tidy()
    desk.works.enqueue_unique_periodic("it", "keep", old)
    receipt = desk.works.enqueue_unique_periodic("it", "keep", tidy(tags={"new"}))
    assert (receipt.kept, receipt.ids, desk.row(old).tags) == (True, (old.id,), ())


def test_an_update_of_what_was_cancelled_is_new_work(desk: Desk) -> None:
    old, new = tidy(), tidy()
    desk.works.enqueue_unique_periodic("it", "update", old)
    desk.works.cancel(old.id)
    assert desk.works.enqueue_unique_periodic("it", "update", new).ids == (new.id,)
    assert [row.id for row in desk.works.query(names=["it"])] == [new.id]


def test_an_update_of_a_chain_or_of_one_time_work_is_refused(desk: Desk) -> None:
    desk.works.enqueue_unique("one", "keep", one())
    desk.works.enqueue_unique("chain", "keep", chain(one("a")).then(one("b")))
    for name in ("one", "chain"):
        with pytest.raises(Misused, match=name):
            desk.works.enqueue_unique_periodic(name, "update", tidy())
    desk.works.enqueue_unique_periodic("chain", "cancel_and_reenqueue", tidy())
    assert [row.periodic for row in desk.works.query(names=["chain"])] == [True]
