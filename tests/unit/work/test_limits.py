"""What ends work by itself: its time to begin, the quota of expedited work; and how long what is finished is kept."""

from __future__ import annotations

import tracemalloc
from datetime import timedelta

import pytest

from backhaul.bell import Queue
from backhaul.work import OneTimeWork, chain, ledger
from tests.unit.work.desk import HOUR, MINUTE, Desk, RecordingBell, again

SOON = timedelta(minutes=1)


def expire(desk: Desk) -> list[str]:
    with desk.database.writing() as connection:
        foreseen = ledger.has_expired(connection, desk.now)
        ended = [work.id for work in ledger.expire(connection, desk.now)]
        assert foreseen == bool(ended)
        return ended


def test_what_has_not_begun_in_its_time_is_cancelled_with_what_waits_for_it(desk: Desk) -> None:
    late, then, other = OneTimeWork("shop.a", expires_after=SOON), OneTimeWork("shop.b"), OneTimeWork("shop.c")
    desk.works.enqueue([chain(late).then(then), other])
    desk.clock.advance(MINUTE - 1)
    assert expire(desk) == []
    desk.clock.advance(1)
    assert set(expire(desk)) == {late.id, then.id}
    row = desk.row(late)
    assert (row.state, row.stop_reason, row.last_error) == ("CANCELLED", "EXPIRED", "it had not begun in its time")
    assert (desk.state(then), desk.state(other)) == ("CANCELLED", "ENQUEUED")


def test_blocked_work_expires_too(desk: Desk) -> None:
    first, late = OneTimeWork("shop.a"), OneTimeWork("shop.b", expires_after=SOON)
    desk.works.enqueue(chain(first).then(late))
    desk.clock.advance(MINUTE)
    assert expire(desk) == [late.id]
    assert (desk.state(first), desk.state(late)) == ("ENQUEUED", "CANCELLED")


def test_what_has_expired_is_not_claimed_although_nobody_has_looked(desk: Desk) -> None:
    late = OneTimeWork("shop.a", expires_after=SOON)
    desk.works.enqueue(late)
    desk.clock.advance(MINUTE)
    assert desk.run(late).kind != "done"
    assert desk.ran == []


def test_what_has_begun_in_its_time_goes_on_after_it(desk: Desk) -> None:
    work = OneTimeWork("shop.a", expires_after=SOON)
    desk.works.enqueue(work)
    desk.run(work, again)
    desk.clock.advance(HOUR)
    assert expire(desk) == []
    assert desk.run(work).kind == "done"


@pytest.fixture
def two_an_hour(desk: Desk) -> Desk:
    desk.bell.expedited_runs = 2
    return desk


def test_beyond_the_quota_work_is_ordinary_or_dropped_as_it_says(two_an_hour: Desk) -> None:
    desk = two_an_hour
    works = [OneTimeWork("shop.a", expedited="run_as_ordinary") for _ in range(3)]
    desk.works.enqueue(works)
    assert [(desk.row(work).expedited, desk.row(work).queue) for work in works] == [
        (True, "first"),
        (True, "first"),
        (False, "sync"),
    ]
    dropped, then = OneTimeWork("shop.b", expedited="drop"), OneTimeWork("shop.c")
    desk.works.enqueue(chain(dropped).then(then))
    row = desk.row(dropped)
    assert (row.state, row.stop_reason, desk.state(then)) == ("CANCELLED", "QUOTA", "CANCELLED")
    desk.clock.advance(HOUR)
    fresh = OneTimeWork("shop.b", expedited="drop")
    desk.works.enqueue(fresh)
    assert (desk.state(fresh), desk.row(fresh).expedited) == ("ENQUEUED", True)


def test_expedited_work_that_has_had_its_try_still_counts(two_an_hour: Desk) -> None:
    desk = two_an_hour
    works = [OneTimeWork("shop.a", expedited="run_as_ordinary") for _ in range(3)]
    for work in works:
        desk.works.enqueue(work)
        desk.run(work, again)
    assert [desk.row(work).ordinary_queue for work in works] == ["sync", "sync", None]


def test_without_a_queue_of_its_own_expedited_work_is_first_in_the_ordinary_one(desk: Desk) -> None:
    desk.works._bell = RecordingBell([Queue(name="sync", tags=frozenset({"connected"}))])
    ordinary, urgent = OneTimeWork("shop.a"), OneTimeWork("shop.a", expedited="drop")
    desk.works.enqueue([ordinary, urgent])
    assert [(work.id, work.queue) for work in desk.due()] == [(urgent.id, "sync"), (ordinary.id, "sync")]


def test_a_stop_and_a_lost_worker_make_expedited_work_ordinary_and_a_wait_does_not(desk: Desk) -> None:
    stopped, lost, waiting = (OneTimeWork("shop.a", expedited="drop") for _ in range(3))
    desk.works.enqueue([stopped, lost, waiting])
    desk.settle(ledger.stop, desk.claim(stopped), reason="CONSTRAINT_CONNECTIVITY")
    desk.settle(ledger.postpone, desk.claim(waiting), due_at=desk.now)
    desk.claim(lost, lease_ms=1)
    desk.clock.advance(1)
    with desk.database.writing() as connection:
        ledger.recover(connection, desk.now)
    assert [(desk.row(work).queue, desk.row(work).expedited) for work in (stopped, lost, waiting)] == [
        ("sync", False),
        ("sync", False),
        ("first", True),
    ]


def test_max_attempts_counts_tries_that_ask_for_another_and_no_stops(desk: Desk) -> None:
    work = OneTimeWork("shop.a", max_attempts=2)
    desk.works.enqueue(work)
    for _ in range(3):
        desk.settle(ledger.stop, desk.claim(work), reason="CONSTRAINT_CONNECTIVITY")
    desk.run(work, again)
    assert (desk.state(work), desk.row(work).attempt, desk.row(work).retries) == ("ENQUEUED", 4, 1)
    desk.clock.advance(HOUR)
    desk.run(work, again)
    assert desk.state(work) == "FAILED"


def test_backoff_on_stop_makes_a_stop_wait_like_a_retry(desk: Desk) -> None:
    work = OneTimeWork("shop.a", backoff_on_stop=True)
    desk.works.enqueue(work)
    desk.clock.advance(HOUR)
    row = desk.settle(ledger.stop, desk.claim(work), reason="CONSTRAINT_CONNECTIVITY")
    assert (row.due_at, row.enqueued_at, row.retries) == (desk.now + 30_000, desk.now, 0)


def test_prune_takes_no_more_than_it_is_told_at_once(desk: Desk) -> None:
    works = [OneTimeWork("shop.a") for _ in range(5)]
    desk.works.enqueue(works)
    desk.works.cancel_all()
    with desk.database.writing() as connection:
        numbers = [ledger.prune(connection, now=desk.now, older_than_ms=0, limit=2) for _ in range(4)]
    assert numbers == [2, 2, 1, 0]


def test_what_has_expired_is_ended_a_part_at_a_time(desk: Desk) -> None:
    late = [OneTimeWork("shop.a", expires_after=SOON) for _ in range(5)]
    desk.works.enqueue([chain(late[0]).then(OneTimeWork("shop.b")), *late[1:]])
    desk.clock.advance(MINUTE)
    with desk.database.writing() as connection:
        numbers = [len(ledger.expire(connection, desk.now, limit=5 if n else 1)) for n in range(3)]
    assert sum(numbers) == 6
    assert numbers[0] <= 2
    assert numbers[2] == 0


@pytest.mark.parametrize("how", ["cancel_all", "cancel_name", "cancel_tag"])
def test_cancelling_many_holds_none_of_them_in_memory(desk: Desk, how: str) -> None:
    def peak(number: int) -> int:
        desk.works.enqueue_unique("x", "replace", chain(*(OneTimeWork("shop.a", tags={"x"}) for _ in range(number))))
        tracemalloc.start()
        try:
            assert getattr(desk.works, how)(*(() if how == "cancel_all" else ("x",))) == number
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)  # what is made once
    assert peak(2_000) < 100_000  # of the ids alone it would be more


def test_cancelling_says_how_many_have_ended_and_not_how_many_it_was_asked_of(desk: Desk) -> None:
    first, last = OneTimeWork("shop.a", tags={"x"}), OneTimeWork("shop.b")
    desk.works.enqueue(chain(first).then(last))
    desk.works.enqueue(OneTimeWork("shop.c"))
    assert desk.works.cancel_tag("x") == 2  # with what waits for it
    assert desk.works.cancel_tag("x") == 0
    assert desk.works.cancel(last.id) == 0
    assert desk.works.cancel_all() == 1
