from __future__ import annotations

import datetime
from typing import Any

import pytest

from backhaul.backoff import Backoff
from backhaul.errors import Misused
from backhaul.work import WorkRequest


def test_a_request_without_an_id_gets_a_fresh_one() -> None:
    assert WorkRequest(task="backhaul.push").id != WorkRequest(task="backhaul.push").id


def test_input_of_exactly_the_limit_is_accepted_and_one_byte_more_is_not() -> None:
    around = len('{"text":""}')
    WorkRequest(task="backhaul.push", input={"text": "x" * (10_240 - around)})
    with pytest.raises(Misused, match="10241 bytes") as caught:
        WorkRequest(task="backhaul.push", input={"text": "x" * (10_241 - around)})
    assert caught.value.hint


@pytest.mark.parametrize(
    "value",
    [
        {"when": datetime.date(2026, 1, 2)},
        {"bytes": b"x"},
        {"pair": (1, 2)},
        {"number": float("nan")},
        {"number": float("inf")},
        {1: "key"},
        {"object": object()},
    ],
    ids=["date", "bytes", "pair", "nan", "infinity", "key", "object"],
)
def test_input_that_would_come_back_as_something_else_is_refused(value: dict[Any, Any]) -> None:
    with pytest.raises(Misused, match="input"):
        WorkRequest(task="backhaul.push", input=value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"task": ""}, "task name"),
        ({"task": "rm -rf"}, "task name"),
        ({"task": "backhaul.task"}, "plain task"),
        ({"task": "backhaul.push", "function": "tidy"}, "plain task"),
        ({"task": "backhaul.push", "id": ""}, "id"),
        ({"task": "backhaul.push", "name": 'a"b'}, "name"),
        ({"task": "backhaul.push", "requires": frozenset({"unmeterd"})}, "unmeterd"),
        ({"task": "backhaul.push", "tags": frozenset({"a,b"})}, "tag"),
        ({"task": "backhaul.push", "interval_ms": -1}, "interval_ms"),
        ({"task": "backhaul.push", "interval_ms": 10, "flex_ms": 11}, "flex_ms"),
        ({"task": "backhaul.push", "initial_delay_ms": 2**62}, "initial_delay_ms"),
        ({"task": "backhaul.push", "max_attempts": 0}, "max_attempts"),
        ({"task": "backhaul.push", "backoff": Backoff(initial_ms=0)}, "backoff"),
        ({"task": "backhaul.push", "backoff": Backoff(initial_ms=10, most_ms=5)}, "backoff"),
        ({"task": "backhaul.push", "backoff": Backoff(jitter=1.5)}, "backoff"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_request_that_makes_no_sense_is_refused_with_a_hint(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(Misused, match=said) as caught:
        WorkRequest(**wrong)
    assert caught.value.hint


def test_a_label_may_be_required() -> None:
    assert WorkRequest(task="backhaul.push", requires=frozenset({"region:eu"})).requires == {"region:eu"}
