"""Chains as values: who waits for whom, in which order; circles and periodic work are refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from backhaul.errors import Misused
from backhaul.work import Chain, Context, OneTimeWork, PeriodicWork, chain, combine, worker


@worker("tests.chain.step")
def step(context: Context) -> None:
    pass


def named(name: str) -> OneTimeWork:
    return OneTimeWork(step, id=name)


A, B, C, D = map(named, "ABCD")


def parents(of: Chain) -> dict[str, tuple[str, ...]]:
    return dict(of.parents)


def test_each_step_waits_for_all_of_the_one_before_in_their_order() -> None:
    made = chain(B, A).then(C, D)
    assert [work.id for work in made.works] == ["B", "A", "C", "D"]
    assert parents(made) == {"B": (), "A": (), "C": ("B", "A"), "D": ("B", "A")}
    assert made.leaves == ("C", "D")


def test_then_makes_another_chain_and_leaves_the_first_as_it_is() -> None:
    first = chain(A)
    one, other = first.then(B), first.then(C)
    assert (first.leaves, one.leaves, other.leaves) == (("A",), ("B",), ("C",))


def test_combined_chains_are_waited_for_together() -> None:
    assert parents(combine(chain(A).then(B), chain(C)).then(D))["D"] == ("B", "C")


def test_a_work_of_several_chains_is_one_and_waits_for_what_each_says() -> None:
    made = combine(chain(A).then(C), chain(B).then(C))
    assert [work.id for work in made.works] == ["A", "C", "B"]
    assert parents(made)["C"] == ("A", "B")


def test_the_end_of_one_chain_may_be_the_middle_of_another_and_is_still_waited_for() -> None:
    assert parents(combine(chain(A), chain(A).then(B)).then(C))["C"] == ("A", "B")


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: combine(chain(A).then(B), chain(B).then(A)), "in a circle: A <- B <- A"),
        (lambda: combine(chain(A).then(B).then(C), chain(C).then(A)), "in a circle"),
        (lambda: chain(A).then(A), "twice"),
        (lambda: chain(A, A), "twice"),
        (lambda: chain(A).then(B).then(A), "twice"),
        (lambda: combine(chain(A), chain(OneTimeWork(step, id="A", input={"x": 1}))), "two works have the id 'A'"),
        (lambda: chain(), "needs a work"),
        (lambda: chain(A).then(), "needs a work"),
        (lambda: combine(), "no chain"),
        (lambda: combine(A), "OneTimeWork is no chain"),  # type: ignore[arg-type]
        (lambda: chain(PeriodicWork(step, every=timedelta(hours=1))), "PeriodicWork cannot be part"),  # type: ignore[arg-type]
        (lambda: chain(A).then(PeriodicWork(step, every=timedelta(hours=1))), "PeriodicWork cannot"),  # type: ignore[arg-type]
    ],
)
def test_a_chain_that_makes_no_sense_is_refused_with_a_hint(build: Any, said: str) -> None:
    with pytest.raises(Misused, match=said) as caught:
        build()
    assert caught.value.hint


def test_a_long_chain_is_built_in_a_moment() -> None:
    made = chain(OneTimeWork(step))
    for _ in range(500):
        made = made.then(OneTimeWork(step))
    assert len(made.works) == 501
