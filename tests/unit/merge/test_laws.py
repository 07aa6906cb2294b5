"""The laws of every strategy: whatever the order of the changes, however often one is seen again, the value is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backhaul.merge import Change, Functions, State, Strategies, merge, strategies_of, unusable
from backhaul.merge.delta import added, edited, put_and_cut
from backhaul.merge.plain import SERVER
from backhaul.wire import Column, Table, encode


def greater(base: Any, mine: Any, theirs: Any) -> Any:
    return max(mine, theirs, key=lambda value: (value is not None, repr(type(value)), value))


FUNCTIONS = Functions([__name__])
TYPES = {"counter": "BIGINT", "set": "TEXT", "text": "TEXT"}


def of(strategy: str, declared: str = "TEXT", deletes: str = "delete_wins") -> Strategies:
    said = f"custom:{__name__}:greater" if strategy == "custom" else strategy
    table = Table(
        name="t",
        columns=[Column(name="id"), Column(name="x", type=declared)],
        key=["id"],
        merge={"x": said},
        deletes=deletes,  # type: ignore[arg-type]
    )
    return strategies_of(table, FUNCTIONS)


def change(kind: str, hlc: int, writer: str, said: Any, base: int = 1) -> Change:
    fields = {"x": msgspec.to_builtins(json.loads(encode(said)))} if kind != "delete" else {}
    return Change(kind=kind, hlc=hlc, writer=writer, fields=fields, base=base)  # type: ignore[arg-type]


def merged(strategies: Strategies, changes: Sequence[Change], state: State | None = None) -> State:
    """Every state on the way is stored and read again."""
    for each in changes:
        state = merge(state, each, state.version + 1 if state else 1, strategies)
        state = msgspec.json.decode(encode(state), type=State)
    assert state is not None
    return state


def value(state: State) -> Any:
    return state.deleted, repr(state.fields.get("x"))


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([0.0, -0.0, 1.0, 1e300]),
    st.text("ab", max_size=2),
    st.just({"hex": "00ff"}),
    st.just({"real": "-Infinity"}),
)
WRITERS = st.sampled_from(["a", "b", SERVER])
ARRAYS = st.lists(st.one_of(st.integers(0, 2), st.sampled_from(["x", "y", None])), max_size=3).map(json.dumps)
TEXTS = st.text("ab😀\n", max_size=6)


def plain_updates(strategy: str) -> st.SearchStrategy[Any]:
    return PLAIN


def counts(strategy: str) -> st.SearchStrategy[Any]:
    return st.builds(lambda add: {"add": add}, st.integers(-5, 5))


def decimal_counts(strategy: str) -> st.SearchStrategy[Any]:
    return st.builds(lambda add: {"add": str(add)}, st.decimals(-5, 5, places=2))


def set_updates(strategy: str) -> st.SearchStrategy[Any]:
    return st.builds(put_and_cut, ARRAYS, ARRAYS).filter(lambda said: said["put"] or said["cut"])


def text_updates(strategy: str) -> st.SearchStrategy[Any]:
    return st.builds(lambda now: {"update": edited(None, "ab a", now)[0].hex()}, TEXTS)


CASES: dict[str, tuple[str, Any, Callable[[str], st.SearchStrategy[Any]]]] = {
    "lww": ("TEXT", 1, plain_updates),
    "server_wins": ("TEXT", 1, plain_updates),
    "immutable": ("TEXT", None, plain_updates),
    "max": ("NUMERIC", 1, plain_updates),
    "min": ("NUMERIC", 1, plain_updates),
    "custom": ("TEXT", 1, lambda _: st.text("ab", max_size=2)),
    "manual": ("TEXT", 1, plain_updates),
    "counter": ("BIGINT", 5, counts),
    "set": ("TEXT", '["x",1]', set_updates),
    "text": ("TEXT", "ab a", text_updates),
}


@pytest.mark.parametrize("strategy", CASES)
@settings(max_examples=60)
@given(data=st.data())
def test_the_order_of_the_changes_does_not_matter(strategy, data):
    declared, first, said = CASES[strategy]
    strategies = of(strategy, declared)
    start = merged(strategies, [change("insert", 1, "a", first)])
    alone = (lambda one: one[1]) if strategy == "custom" else None  # one replica's changes come in their order
    drawn = st.tuples(st.integers(2, 5), WRITERS, said(strategy))
    updates = data.draw(st.lists(drawn, min_size=1, max_size=4, unique_by=alone))
    changes = [change("update", hlc, writer, told) for hlc, writer, told in updates]
    assert all(unusable("update", each.fields, strategies) is None for each in changes)
    other = data.draw(st.permutations(changes))
    one = merged(strategies, changes, start)
    assert value(one) == value(merged(strategies, other, start))
    if strategy != "counter":  # whose changes are applied once, by their numbers
        again = merged(strategies, [*changes, *other], start)
        assert value(again) == value(one)


@settings(max_examples=60)
@given(st.lists(st.tuples(WRITERS, st.one_of(counts(""), decimal_counts("")))), st.randoms())
def test_a_counter_is_its_base_and_the_sum_of_what_was_added(adds, random):
    changes = [change("update", 2 + number, writer, said) for number, (writer, said) in enumerate(adds)]
    changes.append(change("insert", 50, "b", 7))
    random.shuffle(changes)
    state = merged(of("counter", "NUMERIC"), changes, merged(of("counter"), [change("insert", 1, "a", 5)]))
    assert Decimal(state.fields["x"]) == 7 + sum(Decimal(said["add"]) for _, said in adds)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(2, 4), WRITERS, set_updates("")), unique_by=lambda one: one[:2], max_size=5),
    st.randoms(),
)
def test_a_set_has_what_was_put_in_last(updates, random):
    latest = dict.fromkeys(('"x"', "1"), (1, "a", True))
    for hlc, writer, said in updates:
        for name, present in (("put", True), ("cut", False)):
            for element in said[name]:
                latest[bytes(element).decode()] = max(latest.get(bytes(element).decode(), (0,)), (hlc, writer, present))
    changes = [change("update", hlc, writer, said) for hlc, writer, said in updates]
    random.shuffle(changes)
    state = merged(of("set"), changes, merged(of("set"), [change("insert", 1, "a", '["x",1]')]))
    members = sorted(element for element, mark in latest.items() if mark[2])
    assert json.loads(state.fields["x"]) == json.loads(f"[{','.join(members)}]")


@pytest.mark.parametrize("end", ["max", "min"])
@given(numbers=st.lists(st.decimals(-100, 100, places=2), min_size=1), random=st.randoms())
def test_the_greatest_and_the_least_are_found_by_number_and_not_by_letter(end, numbers, random):
    spelt = [random.choice([str(number), int(number)]) for number in numbers]
    changes = [change("insert", 1, "a", None), *(change("update", 2, "a", said) for said in spelt)]
    state = merged(of(end, "NUMERIC(6, 2)"), changes)
    assert Decimal(state.fields["x"]) == (max if end == "max" else min)(map(Decimal, spelt))


@settings(max_examples=60)
@given(st.lists(TEXTS, min_size=2, max_size=2), TEXTS)
def test_two_edits_of_a_text_lose_neither_what_was_written(texts, before):
    updates = [edited(None, before, now) for now in texts]
    changes = [
        change("update", 2, writer, {"update": made[0].hex()}) for writer, made in zip("ab", updates, strict=True)
    ]
    state = merged(of("text"), changes, merged(of("text"), [change("insert", 1, "a", before)]))
    alone = merged(of("text"), changes[:1], merged(of("text"), [change("insert", 1, "a", before)]))
    assert alone.fields["x"] == texts[0]
    for letter in "ab😀":
        gained = sum(max(0, text.count(letter) - before.count(letter)) for text in texts)
        assert state.fields["x"].count(letter) >= gained


@given(TEXTS, st.lists(TEXTS, max_size=4))
def test_edits_of_one_replica_chain(first, rest):
    state: bytes | None = None
    changes = [change("insert", 1, "a", first)]
    for was, now in zip([first, *rest], rest, strict=False):
        update, state = edited(state, was, now)
        changes.append(change("update", len(changes) + 1, "a", {"update": update.hex()}))
    assert merged(of("text"), changes).fields["x"] == ([first, *rest])[-1]


@given(TEXTS, TEXTS, TEXTS)
def test_an_edit_of_a_text_that_has_moved_on_undoes_nothing(was, now, there):
    _, state = edited(None, was, there)
    _, state = edited(state, was, now)
    known = merged(of("text"), [change("insert", 1, "a", ""), change("update", 2, "a", {"update": state.hex()})])
    for letter in "ab":
        gained = max(0, now.count(letter) - was.count(letter)) + max(0, there.count(letter) - was.count(letter))
        assert known.fields["x"].count(letter) >= gained


@pytest.mark.parametrize(("was", "now", "add"), [(None, 5, 5), (5, None, -5), ("1.50", "2", "0.50"), (7, 7, 0)])
def test_what_was_added_is_the_difference(was, now, add):
    assert added(was, now) == add


@pytest.mark.parametrize("pair", [(1, 1.5), (0, "x"), (True, 1), (0, {"hex": ""}), (-(2**63), 2**63 - 1), ("NaN", "1")])
def test_what_cannot_be_added_is_said(pair):
    with pytest.raises(ValueError, match="counter"):
        added(*pair)


@pytest.mark.parametrize(
    ("strategy", "kind", "said"),
    [
        ("counter", "update", "x"),
        ("counter", "update", {}),
        ("counter", "update", {"add": 1.5}),
        ("counter", "update", {"add": True}),
        ("counter", "update", {"add": "1e999999999"}),
        ("counter", "update", {"add": "NaN"}),
        ("counter", "update", {"add": 2**63}),
        ("counter", "insert", "x"),
        ("counter", "insert", {"add": 5}),
        ("set", "update", "{}"),
        ("set", "update", {}),
        ("set", "update", {"put": [1], "cut": [1]}),
        ("set", "update", {"put": ["x" * 5000]}),
        ("set", "insert", "{}"),
        ("set", "insert", 5),
        ("text", "update", 5),
        ("text", "update", {"update": "00"}),
        ("text", "update", {"update": "ff" * 40}),
        ("text", "update", {"update": "01ffffffff0f0100"}),
        ("text", "insert", 5),
        ("lww", "update", {"add": 5}),
        ("max", "update", {"was": 1, "now": 2}),
        ("manual", "update", {"was": {"add": 1}, "now": 2}),
        ("manual", "update", {"add": 1}),
    ],
)
def test_what_a_strategy_cannot_use_is_refused(strategy, kind, said):
    told = unusable(kind, {"x": said}, of(strategy, "NUMERIC"))
    assert told is not None
    assert told.problem == "value-invalid"
    assert told.columns == ("x",)


edits = st.builds(
    lambda hlc, writer, said: change("update", hlc, writer, said), st.integers(2, 6), st.sampled_from("bc"), PLAIN
)


@given(st.lists(edits, max_size=4), st.integers(2, 6), st.randoms(), st.booleans())
def test_an_edit_that_the_deleter_had_not_seen_keeps_the_record(changes, hlc, random, seen):
    """seen: the deleter knows all of the edits, which then are there before it."""
    strategies = of("max", deletes="edit_wins")
    start = merged(strategies, [change("insert", 1, "a", 0, base=0)])
    if seen:
        before = merged(strategies, changes, start)
        dead = merged(strategies, [change("delete", 7, "d", None, base=1 + len(changes))], before)
        assert dead.deleted
        return
    orders = []
    for _ in range(2):
        order = [*changes, change("delete", hlc, "d", None)]
        random.shuffle(order)
        orders.append(merged(strategies, order, start))
    assert value(orders[0])[0] == value(orders[1])[0] == (not changes)
    if changes:
        assert value(orders[0]) == value(orders[1]) == value(merged(strategies, changes, start))


def test_the_deleter_hears_of_the_record_that_was_kept_and_a_second_delete_ends_it():
    strategies = of("max", deletes="edit_wins")
    start = merged(strategies, [change("insert", 1, "a", 0, base=0), change("delete", 2, "d", None)])
    state = merged(strategies, [change("update", 3, "b", 5)], start)
    assert (state.deleted, state.born, state.version, state.fields) == (False, 3, 3, {"x": 5})
    assert merged(strategies, [change("delete", 4, "d", None, base=3)], state).deleted
    assert not merged(strategies, [change("delete", 4, "d", None, base=2)], state).deleted
