"""Durations and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.units import BYTES, MILLISECONDS, duration_ms, size_bytes


@pytest.mark.parametrize(
    ("written", "milliseconds"), [("250ms", 250), ("30s", 30_000), ("1.5m", 90_000), (" 12 h ", 43_200_000)]
)
def test_a_duration_is_a_number_and_a_unit(written: str, milliseconds: int) -> None:
    assert duration_ms(written) == milliseconds


@given(st.integers(0, 10**6), st.sampled_from(sorted(MILLISECONDS)))
def test_whole_durations_are_exact(number: int, unit: str) -> None:
    assert duration_ms(f"{number}{unit}") == number * MILLISECONDS[unit]


@given(st.integers(0, 10**6), st.sampled_from(sorted(BYTES)))
def test_whole_sizes_are_exact(number: int, unit: str) -> None:
    assert size_bytes(f"{number} {unit}") == number * BYTES[unit]


@pytest.mark.parametrize("written", ["", "30", "s", "-1s", "1 year", "1e3s", 30, None, True, "1s 2s"])
def test_anything_else_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration_ms(written)
    with pytest.raises(ValueError, match="size"):
        size_bytes(written)
