"""Kinds: what is the same value, though it is written otherwise; and what is not."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backhaul.kinds import canonical, joined, kind_of
from backhaul.wire import Tagged


@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        ("INTEGER", "integer"),
        ("bigint", "integer"),
        ("NUMERIC(10, 2)", "decimal"),
        ("decimal", "decimal"),
        ("VARCHAR(20)", "text"),
        ("character varying(20)", "text"),
        ("timestamp(3) without time zone", "timestamp"),
        ("timestamp with time zone", "timestamp"),
        ("DATETIME", "timestamp"),
        ("interval", "text"),
        ("double precision", "real"),
        ("FLOAT", "real"),
        ("BLOB", "bytes"),
        ("integer[]", "text"),
        ("mood", "any"),
        ("", "any"),
        ("TEXT | jsonb", "json"),
        ("INTEGER | boolean", "boolean"),
    ],
)
def test_a_column_is_of_a_kind_by_its_declared_type(declared: str, kind: str) -> None:
    assert kind_of(declared) == kind


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("decimal", "12.50", 12.5),
        ("decimal", "0.00", 0),
        ("decimal", "1e3", 1000),
        ("decimal", "-0", 0),
        ("decimal", 0.1, "0.1"),
        ("boolean", True, 1),
        ("boolean", "f", False),
        ("integer", 7, 7.0),
        ("real", 1, 1.0),
        ("timestamp", "2024-02-29T12:00:00Z", "2024-02-29 12:00:00.000000"),
        ("timestamp", "2024-02-29 12:00:00+02", "2024-02-29 10:00:00"),
        ("time", "12:00", "12:00:00.000"),
        ("uuid", "018F3A52-7B1C-7000-8000-0123456789AB", "018f3a527b1c700080000123456789ab"),
        ("uuid", "018f3a52-7b1c-7000-8000-0123456789ab", Tagged(hex="018f3a527b1c700080000123456789ab")),
        ("json", '{"b": 1.0, "a": [1]}', '{"a":[1],"b":1}'),
    ],
)
def test_written_otherwise_it_is_the_same(kind: str, one: object, other: object) -> None:
    assert canonical(one, kind) == canonical(other, kind)
    assert type(canonical(one, kind)) is type(canonical(other, kind))


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("decimal", "12.50", "12.51"),
        ("decimal", "123456789012345678901234567890.1", "123456789012345678901234567890.2"),
        ("decimal", "1", "10"),
        ("decimal", "NaN", "1"),
        ("boolean", 1, 2),
        ("timestamp", "2024-02-29 12:00:00", "2024-02-29 12:00:00.000001"),
        ("json", '{"a": 1}', '{"a": "1"}'),
        ("json", '{"n": "1e0"}', "1"),
        ("text", "1", 1),
        ("any", True, 1),
    ],
)
def test_what_differs_stays_different(kind: str, one: object, other: object) -> None:
    assert (canonical(one, kind), type(canonical(one, kind))) != (canonical(other, kind), type(canonical(other, kind)))


@given(st.decimals(allow_nan=False, allow_infinity=False), st.decimals(allow_nan=False, allow_infinity=False))
def test_two_decimals_have_one_form_exactly_when_they_are_equal(one: Decimal, other: Decimal) -> None:
    assert (canonical(str(one), "decimal") == canonical(str(other), "decimal")) == (one == other)


@given(st.text(), st.sampled_from(["json", "timestamp", "time", "uuid", "boolean", "decimal", "real", "integer"]))
def test_any_text_has_a_form(text: str, kind: str) -> None:
    assert canonical(text, kind) is not None


def test_types_are_told_together_only_where_their_kinds_differ() -> None:
    assert joined("TEXT", "VARCHAR(20)") == "TEXT"
    assert joined("TEXT", "jsonb") == "TEXT | jsonb"
    assert joined("TEXT | jsonb", "json") == "TEXT | jsonb"
    assert joined("jsonb", "TEXT") == "jsonb"
