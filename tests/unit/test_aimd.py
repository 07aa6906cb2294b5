"""How much at once, and how often: bounds are kept, trouble halves exactly, and what goes well gets there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backhaul.aimd import CAREFULLY, MUCH, QUICK_MS, SLOW_MS, Bounds, after, grown, halved, interval_after

NUMBERS = st.integers(1, 10**7)


@st.composite
def bounds(draw: st.DrawFn) -> Bounds:
    least = draw(st.integers(1, 1_000))
    return Bounds(least=least, most=draw(st.integers(least, 10**7)), steps=draw(st.integers(1, 400)))


@st.composite
def within(draw: st.DrawFn) -> tuple[int, Bounds]:
    limits = draw(bounds())
    return draw(st.integers(limits.least, limits.most)), limits


@given(NUMBERS, NUMBERS, st.integers(0, 10**6), bounds())
def test_whatever_happens_a_value_stays_within_its_bounds(value: int, used: int, took: int, limits: Bounds) -> None:
    for found in (halved(value, limits), grown(value, limits), after(limits.within(value), used, took, limits)):
        assert limits.least <= found <= limits.most


@given(within())
def test_trouble_halves_exactly_down_to_the_least(given_: tuple[int, Bounds]) -> None:
    value, limits = given_
    assert halved(value, limits) == max(value // 2, limits.least)
    assert after(value, value, SLOW_MS + 1, limits) == max(value // 2, limits.least)


@given(within())
def test_what_goes_well_adds_a_step_and_no_more(given_: tuple[int, Bounds]) -> None:
    value, limits = given_
    found = after(value, value, QUICK_MS - 1, limits)
    assert value < found or value == limits.most
    assert found - value <= max(1, limits.most // limits.steps)


@given(within())
def test_what_used_little_changes_nothing_and_what_was_neither_quick_nor_slow_adds_a_small_step(
    given_: tuple[int, Bounds],
) -> None:
    value, limits = given_
    assert after(value, (value - 1) // 2, 0, limits) == value
    assert after(value, (value - 1) // 2, SLOW_MS, limits) == value
    for took in (QUICK_MS, SLOW_MS):
        found = after(value, value, took, limits)
        assert value < found or value == limits.most
        assert found - value <= max(1, limits.most // limits.steps // CAREFULLY)


IN_USE = [
    Bounds(most=1_000),
    Bounds(most=4 * 2**20),
    Bounds(most=4),
    Bounds(most=2_000, steps=50),
    Bounds(least=2**16, most=2**22, steps=16),
]


@given(st.sampled_from(IN_USE), st.integers(0, SLOW_MS))
def test_with_any_constant_latency_that_is_not_slow_it_grows_from_the_least_to_the_most(
    limits: Bounds, took: int
) -> None:
    value, exchanges = limits.least, 0
    while value < limits.most:
        value, exchanges = after(value, value, took, limits), exchanges + 1
        assert exchanges <= 10 * limits.steps + 300


@given(st.integers(1, 5_000), st.integers(1, 5_000))
def test_it_settles_below_what_is_taken_and_seldom_asks_for_more(taken: int, begin: int) -> None:
    """A server that takes so much and no more: half of it goes at least, and one message in four is refused at most."""
    limits = Bounds(most=5_000)
    value, refused, tries = begin, 0, 400
    for _ in range(tries):  # until it has found the bound
        value = halved(value, limits) if value > taken else grown(value, limits)
    for _ in range(tries):
        if value > taken:
            value, refused = halved(value, limits), refused + 1
        else:
            value = grown(value, limits)
        assert value <= taken + max(1, limits.most // limits.steps)
        assert 2 * value >= taken - 1
    assert refused <= (tries // 2 if taken < 4 else tries // 4)


@given(bounds(), st.integers(1, 10**7), st.integers(1, 10**7), st.integers(0, 1_000), st.integers(-(10**6), 10**8))
def test_an_interval_stays_within_its_bounds(
    limits: Bounds, interval: int, usual: int, changed: int, since: int
) -> None:
    found = interval_after(interval, usual=usual, bounds=limits, changed=changed, since_ms=since)
    assert limits.least <= found <= limits.most


USUAL = 30_000
LIMITS = Bounds(least=7_500, most=120_000)


def settled(interval: int, changed: int) -> list[int]:
    seen = [interval]
    for _ in range(40):
        seen.append(interval_after(seen[-1], usual=USUAL, bounds=LIMITS, changed=changed, since_ms=seen[-1]))
    return seen


@given(st.integers(7_500, 120_000))
def test_with_nothing_to_do_it_stretches_to_the_most_with_much_it_shrinks_to_the_least(interval: int) -> None:
    assert settled(interval, 0)[-1] == LIMITS.most
    assert settled(interval, 0) == sorted(settled(interval, 0))
    assert settled(interval, MUCH)[-1] == LIMITS.least
    assert settled(interval, 1)[-1] == USUAL
    assert settled(interval, MUCH)[1] == max(interval // 2, LIMITS.least)


@given(st.integers(7_500, 120_000), st.data())
def test_a_look_out_of_turn_that_finds_nothing_is_no_sign(interval: int, data: st.DataObject) -> None:
    since = data.draw(st.integers(0, interval - 1))
    assert interval_after(interval, usual=USUAL, bounds=LIMITS, changed=0, since_ms=since) == interval
