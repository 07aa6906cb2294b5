from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backhaul.clock import (
    SystemClock,
    iso,
    stamp,
    stamp_from_text,
    stamp_milliseconds,
    stamp_to_text,
)

STAMPS = st.builds(stamp, st.integers(0, 2**47 - 1), st.integers(0, 2**16 - 1))


@given(STAMPS)
def test_a_stamp_reads_back_from_its_text(value: int) -> None:
    assert stamp_from_text(stamp_to_text(value)) == value


@given(STAMPS, STAMPS)
def test_stamps_sort_as_text_as_they_do_as_numbers(one: int, other: int) -> None:
    assert (one < other) == (stamp_to_text(one) < stamp_to_text(other))


@given(STAMPS)
def test_a_stamp_fits_a_signed_64_bit_integer(value: int) -> None:
    assert 0 <= value < 2**63


@given(st.integers(0, 2**47 - 1), st.integers(0, 2**16 - 1))
def test_a_stamp_holds_its_milliseconds_and_counter(milliseconds: int, counter: int) -> None:
    value = stamp(milliseconds, counter)
    assert stamp_milliseconds(value) == milliseconds
    assert value & 0xFFFF == counter


@given(st.text(max_size=20) | st.from_regex("[0-9a-fA-F_+ -]{17}", fullmatch=True))
def test_any_other_text_is_refused(text: str) -> None:
    try:
        value = stamp_from_text(text)
    except ValueError:
        return
    assert stamp_to_text(value) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0-0",
        "00000000000A-0000",
        "000000000001_0000",
        "0000_0000001-0000",
        "+00000000001-0000",
        "000000000001-00_0",
        "000000000001- 001",
        "000000000001-\t001",
        "\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669\u0660\u0661\u0662-0000",
        "00000000000x-0000",
        "-00000000001-0000",
        "000000000001--001",
    ],
)
def test_what_int_would_take_but_the_wire_does_not_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a clock stamp"):
        stamp_from_text(text)


def test_a_time_is_written_as_rfc_3339_in_utc() -> None:
    assert iso(1_767_323_045_999) == "2026-01-02T03:04:05Z"
    assert iso(0) == "1970-01-01T00:00:00Z"
    assert iso(None) is None


def test_the_system_clock_counts_milliseconds() -> None:
    before = int(time.time() * 1000)
    assert before - 1 <= SystemClock().now() <= before + 60_000
