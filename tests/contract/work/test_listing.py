"""The list of work as people read it, page by page."""

from __future__ import annotations

import pytest

from backhaul.errors import Misused
from backhaul.work import OneTimeWork
from tests.unit.work.desk import Desk


def made(desk: Desk, **asked: object) -> str:
    desk.clock.advance(1_000)
    return desk.works.enqueue(OneTimeWork("shop.mail", **asked)).ids[0]  # type: ignore[arg-type]


def ended(desk: Desk, work_id: str) -> str:
    desk.clock.advance(1_000)
    desk.run(work_id)
    return work_id


def paged(desk: Desk, size: int, meanwhile: object = None) -> list[str]:
    """All of it, a page at a time."""
    seen: list[str] = []
    after = None
    while page := desk.works.query(limit=size, after=after):
        seen += [work.id for work in page]
        after = page[-1].place
        if callable(meanwhile):
            meanwhile()
    return seen


def test_what_is_unfinished_comes_first_and_then_what_has_finished_last(desk: Desk) -> None:
    works = [made(desk) for _ in range(6)]
    for number in (3, 0, 5):
        ended(desk, works[number])
    expected = [works[number] for number in (4, 2, 1, 5, 0, 3)]
    assert [work.id for work in desk.works.query()] == expected
    assert [work.id for work in desk.works.query(limit=4)] == expected[:4]
    for size in range(1, 7):
        assert paged(desk, size) == expected
    assert [work.id for work in desk.works.query(states=["SUCCEEDED"], limit=2)] == [works[5], works[0]]


def test_what_ends_and_begins_meanwhile_moves_nothing_out_of_the_pages(desk: Desk) -> None:
    works = [made(desk) for _ in range(8)]
    left = list(works)

    def meanwhile() -> None:
        made(desk)
        if left:
            ended(desk, left.pop())  # the newest of them: the one that the page has just ended with, or will

    assert set(paged(desk, 2, meanwhile)) >= set(works)


def test_a_page_goes_on_where_the_one_before_it_ended_though_that_work_is_gone(desk: Desk) -> None:
    first, second, third = (ended(desk, made(desk)) for _ in range(3))
    page = desk.works.query(limit=1)
    assert [work.id for work in page] == [third]
    desk.works.prune()
    again = [ended(desk, made(desk)) for _ in range(2)]
    assert desk.works.query(after=page[0].place) == []
    assert [work.id for work in desk.works.query()] == again[::-1]
    assert desk.works.get(first) is desk.works.get(second) is None


def test_what_is_made_together_has_an_order_of_its_own(desk: Desk) -> None:
    ids = desk.works.enqueue([OneTimeWork("shop.mail") for _ in range(5)]).ids
    assert paged(desk, 2) == sorted(ids, reverse=True)


@pytest.mark.parametrize("said", ["", "1", "x.1.a", ".x.a", "1.1.", f"{10**30}.1.a"])
def test_what_is_no_place_is_refused(desk: Desk, said: str) -> None:
    with pytest.raises(Misused, match="no place"):
        desk.works.query(after=said)


def test_observing_sees_what_is_unfinished_however_much_is_finished(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backhaul.work.works.MOST_OBSERVED", 3)
    for _ in range(5):
        ended(desk, made(desk, tags={"x"}))
    waiting = [made(desk, tags={"x"}) for _ in range(2)]
    seen = [work.id for work in desk.works.observe(tags=["x"], timeout=0.1)]
    assert len(seen) == 3
    assert seen[1:] == waiting
