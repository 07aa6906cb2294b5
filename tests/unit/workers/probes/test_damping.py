from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backhaul.work.reading import Answer
from tests.probed import FrozenClock
from workers.probes.damping import MOST_HOLD_MS, Damping
from workers.probes.hysteresis import Band

Say = Callable[[Answer], Answer]


@pytest.fixture
def damping() -> Damping:
    return Damping(2_000)


@pytest.fixture
def say(damping: Damping, clock: FrozenClock) -> Say:
    return lambda answer: damping.next(answer, clock.advance(1))


def test_the_first_change_takes_effect_at_once_and_so_does_the_way_back(say: Say) -> None:
    assert [say(answer) for answer in ("yes", "no", "yes")] == ["yes", "no", "yes"]


def test_a_no_is_always_believed_at_once(say: Say) -> None:
    for _ in range(20):
        say("yes")
        assert say("no") == "no"


def test_a_yes_after_the_second_loss_must_hold_for_the_steady_time(say: Say, clock: FrozenClock) -> None:
    for answer in ("yes", "no", "yes", "no"):
        say(answer)
    assert say("yes") == "no"
    clock.advance(1_998)
    assert say("yes") == "no"
    assert say("yes") == "yes"


def test_a_break_begins_the_time_anew(say: Say, damping: Damping, clock: FrozenClock) -> None:
    for answer in ("yes", "no", "yes", "no", "yes"):
        say(answer)
    clock.advance(1_500)
    say("no")
    assert say("yes") == "no"
    clock.advance(1_500)
    assert say("yes") == "no"
    assert damping.left_ms(clock.now()) == 499


def test_the_time_doubles_up_to_a_minute(damping: Damping, clock: FrozenClock) -> None:
    holds = []
    for _ in range(12):
        damping.next("no", clock.advance(10))
        begun = clock.advance(10)
        while damping.next("yes", clock.now()) == "no":
            clock.advance(500)
        holds.append(clock.now() - begun)
    assert holds[:7] == [0, 2_000, 4_000, 8_000, 16_000, 32_000, MOST_HOLD_MS]
    assert set(holds[7:]) == {MOST_HOLD_MS}


def test_a_yes_that_stood_for_a_minute_makes_it_forgotten(say: Say, clock: FrozenClock) -> None:
    for answer in ("yes", "no", "yes", "no", "yes"):
        say(answer)
    clock.advance(2_000)
    assert say("yes") == "yes"
    clock.advance(60_000)
    assert say("no") == "no"
    assert say("yes") == "yes"


def test_a_no_that_stood_for_a_minute_makes_it_forgotten(say: Say, clock: FrozenClock) -> None:
    """A link that comes for 50 s in each hour does not flap."""
    for _ in range(24):
        assert say("yes") == "yes"
        clock.advance(50_000)
        assert say("no") == "no"
        clock.advance(3_550_000)


def test_a_no_that_is_broken_by_a_yes_that_must_hold_has_not_stood(say: Say, clock: FrozenClock) -> None:
    for answer in ("yes", "no", "yes", "no"):
        say(answer)
    for _ in range(40):
        clock.advance(2_500)
        assert say("no") == "no"
        clock.advance(1)
        assert say("yes") == "no"


def test_unknown_after_a_no_waits_like_a_yes(say: Say) -> None:
    for answer in ("yes", "no", "yes", "no"):
        say(answer)
    assert say("unknown") == "no"


def test_between_yes_and_unknown_nothing_waits(say: Say) -> None:
    for _ in range(5):
        assert say("yes") == "yes"
        assert say("unknown") == "unknown"


def test_since_is_when_the_answer_became_what_it_is(damping: Damping, clock: FrozenClock) -> None:
    begun = clock.now()
    damping.next("yes", clock.now())
    damping.next("yes", clock.advance(5_000))
    assert damping.since == begun
    damping.next("no", clock.advance(5_000))
    assert damping.since == begun + 10_000


def test_a_clock_that_was_set_back_makes_nothing_wait_for_longer(
    say: Say, clock: FrozenClock, damping: Damping
) -> None:
    for answer in ("yes", "no", "yes", "no", "yes"):
        say(answer)
    clock.advance(-86_400_000)
    assert damping.left_ms(clock.now()) <= 2_000


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["yes", "no", "unknown"]), st.integers(0, 70_000)), max_size=50))
def test_a_no_is_never_kept_for_more_than_a_minute_and_never_withheld(steps: list[tuple[Answer, int]]) -> None:
    damping, now, returned = Damping(2_000), 1_000_000, None
    for said, after in steps:
        now += after
        returned = None if said == "no" else now if returned is None else returned
        answer = damping.next(said, now)
        assert answer in (said, "no")
        if returned is not None and now - returned >= MOST_HOLD_MS:
            assert answer == said


def test_a_level_between_two_edges_keeps_its_answer() -> None:
    band = Band(lost=15, regained=20, at_first=True)
    levels = (17, 16, 15, 17, 19.9, 20, 16, 15.5, 14, 100)
    held = [True, True, False, False, False, True, True, True, False, True]
    assert [band.holds(level) for level in levels] == held


def test_edges_the_wrong_way_round_are_one_edge() -> None:
    band = Band(lost=20, regained=15, at_first=True)
    assert [band.holds(level) for level in (20, 20.5, 19)] == [False, True, False]
