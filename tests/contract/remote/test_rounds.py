"""A round of pages, while changes go on: it is reckoned from where it began, and whoever follows it ends up equal."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.remote.conftest import Join
from tests.contract.remote.replicas import Copy, Replica, digest_there

scopes = count(1)


def fill(replica: Replica, *numbers: int) -> None:
    replica.push(*(replica.op("insert", "playlist", [1, number], note="born") for number in numbers))


def change(replica: Replica, number: int, note: str) -> None:
    assert replica.do("update", "playlist", [1, number], note=note).status == "applied"


@pytest.mark.parametrize("before", [0, 1], ids=["from the beginning", "from a cursor"])
def test_a_record_born_before_the_end_of_a_page_and_changed_after_it_is_told_again_whole(
    join: Join, before: int
) -> None:
    a, b = join("a"), join("b")
    copy = Copy("playlist")
    fill(a, *range(before))
    if before:
        copy.take(b.pull())
    fill(a, 11, 12, 13, 14)
    first = b.page(before + 2)
    copy.take(first.records)
    change(a, 11, "changed between the pages")
    fill(a, 15)
    second = b.page(1)
    copy.take(second.records)
    change(a, 11, "and again")
    a.do("delete", "playlist", [1, 12])
    rest = b.pull(limit=1)
    copy.take(rest)
    assert first.more
    assert second.more
    assert [(record.key[1], record.whole) for record in rest if record.key[1] == 11] == [(11, True)]
    assert copy.digest() == digest_there(b.remote, "playlist")


def test_a_field_changed_before_and_one_after_the_end_of_a_page_are_told_together(join: Join) -> None:
    a, b = join("a"), join("b")
    for number in (1, 2, 3):
        a.do("insert", "customer", [number], name="n", phone="p")
    b.pull()
    for number in (1, 2, 3):
        a.do("update", "customer", [number], name="before")
    assert [record.fields for record in b.page(1).records] == [{"name": "before"}]
    a.do("update", "customer", [1], phone="after")
    found = {record.key[0]: record.fields for record in b.pull()}
    assert found[1] == {"name": "before", "phone": "after"}


def test_a_round_from_the_beginning_leaves_nothing_out_up_to_its_end(join: Join) -> None:
    a = join("a")
    fill(a, 1, 2, 3)
    a.page(1)
    fill(a, 4)
    assert [record.key[1] for record in a.pull(limit=1)] == [2, 3, 4]
    fill(a, 5)
    assert a.pull() == []


def test_a_feed_that_was_empty_has_begun_all_the_same(join: Join) -> None:
    a, b = join("a"), join("b")
    assert a.pull() == b.pull() == []
    fill(a, 1)
    assert a.pull() == []
    assert len(b.pull()) == 1


def test_an_own_record_is_told_as_soon_as_another_has_written_to_it(join: Join) -> None:
    a, b = join("a"), join("b")
    a.pull()
    a.do("insert", "customer", [1], name="n", phone="p")
    b.do("update", "customer", [1], phone="b's", ahead_ms=1_000)
    (record,) = a.pull()
    assert (record.whole, record.fields) == (True, {"name": "n", "phone": "b's"})


def test_a_place_without_a_record_of_its_own_is_passed(join: Join) -> None:
    a, b = join("a"), join("b")
    a.do("void", "playlist", [])
    a.do("update", "playlist", [1, 1], note="nobody has it whole")
    page = b.page(10)
    assert (page.records, page.position, page.head, page.more) == ([], 2, 2, False)


class Writer:
    """A replica that has what it wrote and what it was told: as an app that sends each change at once."""

    def __init__(self, replica: Replica, ahead_ms: int) -> None:
        self.replica = replica
        self.ahead_ms = ahead_ms
        self.copy = Copy("playlist")

    def toggle(self, number: int) -> None:
        """Delete the record, or make it."""
        if [1, number] in self.copy:
            self.copy.delete([1, number])
            self._send("delete", number)
        else:
            self.copy.put([1, number], {"note": 0, "title": 0})
            self._send("insert", number, note=0, title=0)

    def write(self, number: int, name: str, value: int) -> None:
        if [1, number] in self.copy:
            self.copy.change([1, number], {name: value})
            self._send("update", number, **{name: value})

    def page(self, limit: int) -> bool:
        page = self.replica.page(limit)
        self.copy.take(page.records)
        return page.more

    def _send(self, kind: str, number: int, **fields: Any) -> None:
        result = self.replica.do(kind, "playlist", [1, number], ahead_ms=self.ahead_ms, **fields)
        assert result.status == "applied"


writers, numbers, names = st.integers(0, 1), st.integers(1, 3), st.sampled_from(["note", "title"])
steps = st.one_of(
    st.tuples(st.just("toggle"), writers, numbers),
    st.tuples(st.just("write"), writers, numbers, names, st.integers(0, 2)),
    st.tuples(st.just("write"), writers, numbers, names, st.integers(0, 2)),
    st.tuples(st.just("page"), st.integers(0, 2), st.just(1)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(skew=st.integers(0, 9), steps=st.lists(steps, min_size=15, max_size=40), limit=st.integers(1, 3))
def test_whoever_writes_and_follows_in_pages_of_any_size_ends_where_the_server_is(
    join: Join, skew: int, steps: list[tuple[Any, ...]], limit: int
) -> None:
    scope = f"law {next(scopes)}"
    all_three = [Writer(join(f"{who}", scope=scope), ahead_ms) for who, ahead_ms in enumerate([0, skew, 0])]
    for verb, who, *rest in steps:
        getattr(all_three[who], verb)(*rest)
    for one in all_three:
        while one.page(limit):
            pass
    there = digest_there(all_three[0].replica.remote, "playlist")
    assert [one.copy.digest() for one in all_three] == [there] * 3
