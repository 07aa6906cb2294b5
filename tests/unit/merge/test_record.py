"""The laws of last write wins, and the stories of records that live, die and come back."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backhaul.merge import Change, State, merge

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(0, 2), st.sampled_from([0.0, -0.0, 1.0]), st.text("ab", max_size=2)
)
WRITERS = st.sampled_from(["a", "b", "c"])
FIELDS = st.dictionaries(st.sampled_from(["x", "y", "z"]), VALUES, max_size=3)
WHOLE = st.fixed_dictionaries({"x": VALUES, "y": VALUES})


def change(kind: str, hlc: int, writer: str = "a", **fields: object) -> Change:
    return Change(kind=kind, hlc=hlc, writer=writer, fields=fields)  # type: ignore[arg-type]


def merged(changes: Sequence[Change], state: State | None = None) -> State:
    for version, each in enumerate(changes, start=state.version + 1 if state else 1):
        state = merge(state, each, version)
    assert state is not None
    return state


def content(state: State) -> object:
    """What replicas agree on: life, values, and who wrote them."""
    return state.deleted, bool(state.born), {name: (repr(v), state.stamp(name)[:2]) for name, v in state.fields.items()}


updates = st.builds(lambda h, w, f: change("update", h, w, **f), st.integers(1, 4), WRITERS, FIELDS)
inserts = st.builds(lambda h, w, f: change("insert", h, w, **f), st.integers(1, 4), WRITERS, WHOLE)
backfills = st.builds(lambda w, f: change("backfill", 0, w, **f), WRITERS, WHOLE)
deletes = st.builds(lambda h, w: change("delete", h, w), st.integers(1, 4), WRITERS)
writes = st.lists(st.one_of(updates, inserts, backfills), min_size=1, max_size=4)


@given(writes, st.randoms())
def test_the_fields_are_the_same_in_whatever_order_the_writes_come(changes, random):
    other = list(changes)
    random.shuffle(other)
    assert content(merged(changes)) == content(merged(other))


@given(writes)
def test_a_write_that_comes_twice_changes_no_field(changes):
    once = merged(changes)
    for each in changes:
        assert content(merge(once, each, once.version + 1)) == content(once)


@given(inserts, st.lists(st.one_of(updates, deletes, backfills), min_size=1, max_size=4), st.randoms())
def test_life_and_death_do_not_depend_on_the_order_of_deletes_updates_and_backfills(first, changes, random):
    other = list(changes)
    random.shuffle(other)
    one, two = merged([first, *changes]), merged([first, *other])
    assert one.deleted == two.deleted
    assert one.deleted == any(c.kind == "delete" and c.hlc >= first.hlc for c in changes)
    if one.deleted:
        assert (one.hlc, one.writer, one.fields) == (two.hlc, two.writer, two.fields)


@given(st.lists(st.one_of(inserts, deletes, backfills), min_size=1, max_size=4))
def test_a_record_lives_when_its_newest_insert_is_newer_than_its_newest_delete(changes):
    newest_delete = max((c.hlc for c in changes if c.kind == "delete"), default=-1)
    newest_insert = max((c.hlc for c in changes if c.kind != "delete"), default=-2)
    for order in itertools.permutations(changes):
        assert merged(order).deleted == (newest_delete >= newest_insert)


@given(writes, st.one_of(updates, inserts, backfills, deletes))
def test_what_someone_must_hear_gets_the_new_version_and_nothing_else_does(changes, last):
    before = merged(changes)
    after = merge(before, last, before.version + 1)
    shown_before = before.deleted, {name: repr(value) for name, value in before.fields.items()}
    shown_after = after.deleted, {name: repr(value) for name, value in after.fields.items()}
    if shown_before != shown_after:
        assert after.version == before.version + 1
    if after.version == before.version:
        assert all(after.stamp(name)[2] <= before.version for name in after.fields)


@given(st.lists(st.one_of(updates, inserts, backfills, deletes), min_size=1, max_size=5))
def test_no_stamp_is_newer_than_its_record(changes):
    state = merged(changes)
    assert state.born <= state.version
    assert all(state.stamp(name)[2] <= state.version for name in state.fields)
    assert set(state.stamps) <= set(state.fields)


def test_an_insert_makes_a_whole_record():
    state = merged([change("insert", 5, x=1, y=2)])
    assert (state.version, state.born, state.creator, state.fields, state.stamps) == (1, 1, "a", {"x": 1, "y": 2}, {})


def test_an_update_of_an_unknown_record_waits_for_the_rest():
    state = merged([change("update", 5, x=1)])
    assert state.born == 0
    state = merge(state, change("insert", 3, "b", x=7, y=8), 9)
    assert (state.born, state.fields, state.creator) == (9, {"x": 1, "y": 8}, "b")
    assert state.stamps == {"x": (5, "a", 9)}


def test_a_losing_write_keeps_the_winner_and_lets_the_loser_hear_it():
    state = merged([change("insert", 1, x=1, y=1), change("update", 9, "a", x=2), change("update", 8, "b", x=3)])
    assert state.fields["x"] == 2
    assert state.stamps["x"] == (9, "a", 3)
    assert state.version == 3


def test_writing_the_value_that_is_there_is_told_to_nobody():
    state = merged([change("backfill", 0, "a", x=1, y=1)])
    assert merge(state, change("backfill", 0, "a", x=1, y=1), 2) is state
    later = merge(state, change("backfill", 0, "b", x=1, y=1), 2)
    assert (later.version, later.stamp("x")) == (1, (0, "b", 1))


def test_a_backfill_never_revives_a_tombstone_but_its_sender_hears_of_the_delete():
    state = merged([change("delete", 3), change("backfill", 0, "b", x=1, y=1)])
    assert (state.deleted, state.version, state.writer) == (True, 2, "a")


def test_a_newer_insert_revives_a_record_with_its_own_fields_only():
    state = merged([change("insert", 1, x=1, z=1), change("delete", 2), change("insert", 3, "b", x=5, y=6)])
    assert (state.deleted, state.born, state.creator, state.fields) == (False, 3, "b", {"x": 5, "y": 6})


def test_a_delete_that_is_older_than_the_record_brings_it_back_to_the_deleter_whole():
    state = merged([change("insert", 5, x=1, y=1), change("delete", 3, "b")])
    assert (state.deleted, state.version, state.born) == (False, 2, 2)


def test_merging_leaves_its_arguments_alone():
    first = merged([change("insert", 1, x=1, y=1)])
    fields = dict(first.fields)
    merge(first, change("update", 2, x=5), 2)
    assert first.fields == fields


@pytest.mark.parametrize("kind", ["insert", "update"])
def test_ten_thousand_changes_take_less_than_a_tenth_of_a_second(kind):
    row = {f"column_{number}": number for number in range(8)}
    state = merged([change("insert", 1, **row)]) if kind == "update" else None
    changes = [
        change(kind, 2 + number, column_1=number) if state else change(kind, 2, **row) for number in range(10_000)
    ]
    best = min(_seconds(state, changes) for _ in range(3))
    assert best < 0.1, f"{best:.3f} s"


def _seconds(state: State | None, changes: Sequence[Change]) -> float:
    start = time.perf_counter()
    for each in changes:
        merge(state, each, 2)
    return time.perf_counter() - start
