from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backhaul.backoff import Backoff

BACKOFFS = st.builds(
    Backoff,
    policy=st.sampled_from(["exponential", "linear"]),
    initial_ms=st.integers(1, 10**7),
    most_ms=st.integers(10**7, 10**9),
    jitter=st.floats(0, 1),
)
TRIES = st.integers(0, 10**9)
DRAWS = st.floats(0, 1)


def test_exponential_doubles_from_30_seconds_up_to_5_hours() -> None:
    delays = [Backoff().delay_ms(tries) for tries in range(1, 13)]
    assert delays[:4] == [30_000, 60_000, 120_000, 240_000]
    assert delays[-2:] == [18_000_000, 18_000_000]


def test_linear_grows_by_the_first_delay() -> None:
    backoff = Backoff(policy="linear", initial_ms=10_000)
    assert [backoff.delay_ms(tries) for tries in (1, 2, 3)] == [10_000, 20_000, 30_000]


@given(BACKOFFS, TRIES, DRAWS)
def test_no_delay_is_longer_than_the_cap_and_jitter_takes_at_most_half(
    backoff: Backoff, tries: int, draw: float
) -> None:
    whole = backoff.delay_ms(tries, draw=0)
    assert 1 <= whole <= backoff.most_ms
    assert whole / 2 <= backoff.delay_ms(tries, draw=draw) <= whole
    assert whole / 2 <= backoff.delay_ms(tries) <= whole


@given(BACKOFFS, TRIES, DRAWS)
def test_delays_never_shrink_with_the_tries(backoff: Backoff, tries: int, draw: float) -> None:
    assert backoff.delay_ms(tries, draw=draw) <= backoff.delay_ms(tries + 1, draw=draw)


@given(BACKOFFS)
def test_no_tries_at_all_waits_as_one(backoff: Backoff) -> None:
    assert backoff.delay_ms(0, draw=0) == backoff.delay_ms(-5, draw=0) == backoff.delay_ms(1, draw=0)
