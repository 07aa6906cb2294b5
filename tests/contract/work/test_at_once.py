"""Two who do something at the same moment, each in a transaction and a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from backhaul.errors import Misused, Stopped
from backhaul.work import Constraints, OneTimeWork, PeriodicWork, TableTrigger, chain, combine, ledger
from backhaul.work.admitting import entries_of
from tests.unit.work.desk import MINUTE, Desk
from tests.waiting import eventually


def triggered(**given: Any) -> OneTimeWork:
    return OneTimeWork("shop.a", **given, constraints=Constraints(triggers=(TableTrigger("photo"),)))


def at_once(*doings: Callable[[], Any]) -> None:
    """Raises what one of them raised."""
    ready, raised = threading.Barrier(len(doings)), []

    def do(doing: Callable[[], Any]) -> None:
        ready.wait()
        try:
            doing()
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=do, args=(doing,)) for doing in doings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if raised:
        raise raised[0]


@pytest.mark.parametrize("round_", range(5))
def test_of_two_parents_that_end_at_once_one_unblocks_the_child(desk: Desk, round_: int) -> None:
    a, b, c = (OneTimeWork(f"shop.{name}") for name in "abc")
    desk.works.enqueue(chain(a, b).then(c))
    runs = [desk.claim(a), desk.claim(b)]
    at_once(*(lambda run=run: desk.settle(ledger.succeed, run) for run in runs))
    assert (desk.state(c), desk.row(c).due_at) == ("ENQUEUED", desk.now)


@pytest.mark.parametrize("kind", ["postgresql"])  # SQLite has one writer: the second cannot even begin
def test_a_parent_waits_until_the_other_has_committed_before_it_looks(desk: Desk, kind: str) -> None:
    """Both have ended before either commits: the one that commits last sees it."""
    a, b, c = (OneTimeWork(f"shop.{name}") for name in "abc")
    desk.works.enqueue(chain(a, b).then(c))
    first, second = desk.claim(a), desk.claim(b)
    settled = threading.Event()

    def settle_second() -> None:
        desk.settle(ledger.succeed, second)
        settled.set()

    with desk.database.writing() as connection:
        ledger.succeed(connection, first, now=desk.now)
        thread = threading.Thread(target=settle_second)
        thread.start()
        assert not settled.wait(0.3)  # it is held up at their child
    thread.join(60)
    assert desk.state(c) == "ENQUEUED"


@pytest.mark.parametrize("round_", range(3))
def test_of_two_who_enqueue_under_one_name_at_once_one_is_kept(desk: Desk, round_: int) -> None:
    works = [OneTimeWork("shop.mail") for _ in range(6)]
    receipts = []
    at_once(*(lambda work=work: receipts.append(desk.works.enqueue_unique("mail", "keep", work)) for work in works))
    assert len({receipt.ids for receipt in receipts}) == 1
    assert sorted(receipt.kept for receipt in receipts) == [False] + [True] * 5
    assert len(desk.works.query(names=["mail"])) == 1


def test_of_those_who_append_at_once_each_waits_for_the_one_before(desk: Desk) -> None:
    works = [OneTimeWork("shop.mail") for _ in range(6)]
    at_once(*(lambda work=work: desk.works.enqueue_unique("mail", "append", work) for work in works))
    ran = []
    while desk.due():
        ran += desk.run_due()
        desk.clock.advance(MINUTE)
    assert sorted(ran) == sorted(work.id for work in works)
    assert [desk.row(work).parents for work in works].count(0) == 1


def test_updates_of_one_name_at_once_leave_one_periodic_work(desk: Desk) -> None:
    works = [PeriodicWork("shop.tidy", every=timedelta(hours=1), input={"n": n}) for n in range(6)]
    at_once(*(lambda work=work: desk.works.enqueue_unique_periodic("tidy", "update", work) for work in works))
    (row,) = desk.works.query(names=["tidy"])
    assert row.generation == 5


@pytest.mark.parametrize("round_", range(5))
def test_work_that_is_appended_while_its_parent_ends_is_not_left_behind(desk: Desk, round_: int) -> None:
    old, new = OneTimeWork("shop.a"), OneTimeWork("shop.b")
    desk.works.enqueue_unique("mail", "append", old)
    run = desk.claim(old)
    at_once(lambda: desk.settle(ledger.succeed, run), lambda: desk.works.enqueue_unique("mail", "append", new))
    assert (desk.state(old), desk.state(new)) == ("SUCCEEDED", "ENQUEUED")


@pytest.mark.parametrize("round_", range(5))
def test_a_diamond_whose_sides_end_while_it_is_cancelled_ends_without_a_deadlock(desk: Desk, round_: int) -> None:
    tops = [OneTimeWork("shop.top", tags={"x"}) for _ in range(4)]
    last = OneTimeWork("shop.last", tags={"x"})
    middle = [OneTimeWork("shop.middle", tags={"x"}) for _ in range(2)]
    desk.works.enqueue(combine(chain(*tops[:2]).then(middle[0]), chain(*tops[2:]).then(middle[1])).then(last))
    runs = [desk.claim(top) for top in tops]

    def settle(run: Any) -> None:
        with suppress(Stopped):  # it was cancelled first
            desk.settle(ledger.succeed, run)

    at_once(*(lambda run=run: settle(run) for run in runs), lambda: desk.works.cancel_tag("x"))
    assert desk.state(last) == "CANCELLED"
    assert all(desk.row(work).finished for work in (*tops, *middle))


@pytest.mark.parametrize("kind", ["postgresql"])  # SQLite has one writer
def test_what_is_lost_and_held_by_the_app_is_left_for_the_next_time(desk: Desk, kind: str) -> None:
    held, lost = OneTimeWork("shop.a"), OneTimeWork("shop.b")
    desk.works.enqueue_unique("it", "append", held)
    desk.works.enqueue(lost)
    desk.claim(held)
    desk.claim(lost)
    later = desk.now + 2 * MINUTE

    def recovered() -> list[str]:
        with desk.database.writing() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout = '10s'")  # else a failure would be a test without end
            return [work.id for work in ledger.recover(connection, later)]

    with desk.engine.begin() as connection:
        desk.works.enqueue_unique("it", "append", OneTimeWork("shop.c"), connection=connection)
        assert recovered() == [lost.id]
    assert recovered() == [held.id]


class Beside:
    """One who does something in a transaction of his own while the block holds what he needs. Ends with the block."""

    def __init__(self, desk: Desk, doing: Callable[[], Any]) -> None:
        self.desk, self.answer, self.raised = desk, None, None
        self._doing = doing
        self._thread = threading.Thread(target=self._do)

    def start(self) -> None:
        """Until he is held up, or is done."""
        self._thread.start()
        eventually(lambda: not self._thread.is_alive() or self._is_held_up(), 30)

    def end(self) -> Any:
        self._thread.join(60)
        if self.raised is not None:
            raise self.raised
        return self.answer

    def _do(self) -> None:
        try:
            self.answer = self._doing()
        except Exception as error:
            self.raised = error

    def _is_held_up(self) -> bool:
        with self.desk.database.reading() as connection:
            held_up = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted"
            return bool(connection.exec_driver_sql(f"{held_up} AND datname = current_database()").scalar_one())


@pytest.mark.parametrize("kind", ["postgresql"])  # SQLite has one writer: the second cannot even begin
class TestTwoTransactions:
    def test_what_something_is_just_being_appended_to_is_not_pruned(self, desk: Desk, kind: str) -> None:
        old, new = OneTimeWork("shop.a"), OneTimeWork("shop.b")
        desk.works.enqueue_unique("it", "append", old)
        desk.settle(ledger.succeed, desk.claim(old), output={"n": 1})
        with desk.engine.begin() as connection:
            desk.works.enqueue_unique("it", "append", new, connection=connection)
            assert desk.works.prune() == 0
        assert desk.works.prune() == 0
        with desk.database.reading() as connection:
            assert ledger.inputs_of(connection, desk.row(new)) == [{"n": 1}]

    def test_an_append_to_what_is_just_being_pruned_waits_for_nothing(self, desk: Desk, kind: str) -> None:
        old, new = OneTimeWork("shop.a"), OneTimeWork("shop.b")
        desk.works.enqueue_unique("it", "append", old)
        desk.settle(ledger.succeed, desk.claim(old))
        other = Beside(desk, lambda: desk.works.enqueue_unique("it", "append", new))
        with desk.database.writing() as connection:
            assert ledger.prune(connection, now=desk.now, older_than_ms=0) == 1
            other.start()
        other.end()
        assert (desk.state(new), desk.row(new).parents) == ("ENQUEUED", 0)

    def test_the_last_expedited_work_of_an_hour_is_given_once(self, desk: Desk, kind: str) -> None:
        desk.bell.expedited_runs = 1
        first, second = (OneTimeWork("shop.a", expedited="run_as_ordinary") for _ in range(2))
        other = Beside(desk, lambda: desk.works.enqueue(second))
        with desk.database.writing() as connection:
            ledger.enqueue_all(connection, entries_of(first, desk.bell), now=desk.now)
            other.start()
        other.end()
        assert [desk.row(work).expedited for work in (first, second)] == [True, False]

    def test_the_last_place_to_wait_for_data_is_given_once(self, desk: Desk, kind: str) -> None:
        works = [triggered() for _ in range(9)]
        desk.works.enqueue(works[:7])
        other = Beside(desk, lambda: desk.works.enqueue(works[8]))
        with desk.database.writing() as connection:
            ledger.enqueue_all(connection, entries_of(works[7], desk.bell), now=desk.now)
            other.start()
        with pytest.raises(Misused, match="8 may"):
            other.end()

    def test_of_two_updates_at_once_one_is_given_the_last_place(self, desk: Desk, kind: str) -> None:
        works = [OneTimeWork("shop.a") for _ in range(2)]
        desk.works.enqueue([triggered() for _ in range(7)])
        desk.works.enqueue(works)
        other = Beside(desk, lambda: desk.works.update(triggered(id=works[1].id)))
        with desk.database.writing() as connection:
            ledger.update_work(connection, triggered(id=works[0].id).request, queue="sync", now=desk.now)
            other.start()
        with pytest.raises(Misused, match="8 may"):
            other.end()

    @pytest.mark.parametrize("turned", [False, True])
    def test_an_update_and_an_enqueue_do_not_meet_crosswise(self, desk: Desk, kind: str, turned: bool) -> None:
        """One needs the work and then its turn, the other its turn and then the work."""
        parent, then = OneTimeWork("shop.a"), triggered()
        desk.works.enqueue(parent)
        entries = entries_of(chain(parent).then(then), desk.bell)
        doings: list[Callable[[Any], Any]] = [
            lambda opened: ledger.enqueue_all(opened, entries, now=desk.now),
            lambda opened: ledger.update_work(opened, triggered(id=parent.id).request, queue="sync", now=desk.now),
        ]
        first, second = doings[::-1] if turned else doings

        def do() -> None:
            with desk.database.writing() as opened:
                second(opened)

        other = Beside(desk, do)
        with desk.database.writing() as connection:
            ledger.get(connection, parent.id)
            first(connection)
            other.start()
        other.end()
        assert desk.row(parent).children
        assert desk.row(parent).trigger_update_ms is not None

    def test_a_transaction_of_the_app_holds_up_nobody_elses_limited_work(self, desk: Desk, kind: str) -> None:
        """Nor do two of them meet crosswise: what they do not see of each other is not counted."""
        desk.bell.expedited_runs = 2
        urgent, waiting = ([OneTimeWork("shop.a", expedited="drop") for _ in range(4)], [triggered() for _ in range(3)])
        with desk.engine.begin() as one, desk.engine.begin() as other:
            for connection in (one, other):
                connection.execute(text("SET LOCAL lock_timeout = '10s'"))
            desk.works.enqueue(urgent[0], connection=one)
            desk.works.enqueue(waiting[0], connection=other)
            desk.works.enqueue(waiting[1], connection=one)
            desk.works.enqueue(urgent[1], connection=other)
            desk.works.enqueue([urgent[2], waiting[2]])
        desk.works.enqueue(urgent[3])
        assert [desk.state(work) for work in urgent] == ["ENQUEUED"] * 3 + ["CANCELLED"]
        assert [desk.state(work) for work in waiting] == ["ENQUEUED"] * 3

    def test_of_two_works_of_one_id_the_first_is_left_as_it_is(self, desk: Desk, kind: str) -> None:
        first, second = (OneTimeWork("shop.a", id="the-one", tags={tag}) for tag in ("one", "two"))
        entries = entries_of(chain(OneTimeWork("shop.b")).then(second), desk.bell)

        def enqueue() -> list[str]:
            with desk.database.writing() as connection:
                return ledger.enqueue_all(connection, entries, now=desk.now)

        other = Beside(desk, enqueue)
        with desk.engine.begin() as connection:
            desk.works.enqueue(first, connection=connection)
            other.start()
        assert "the-one" not in other.end()
        row = desk.row("the-one")
        assert (row.tags, row.parents, row.state) == (("one",), 0, "ENQUEUED")
        assert desk.works.query(tags=["two"]) == []
        with desk.database.reading() as connection:
            assert ledger.parents_of(connection, "the-one") == []
