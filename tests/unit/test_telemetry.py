from __future__ import annotations

import ast
import logging
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from backhaul import telemetry
from backhaul.telemetry import CATALOGUE, emit

ROOT = Path(__file__).parents[2]


def test_an_event_is_a_sentence_and_a_count(caplog: pytest.LogCaptureFixture) -> None:
    before = telemetry.counters()["backhaul_gate_closed_total"]
    with caplog.at_level(logging.DEBUG, logger="backhaul"):
        emit("queue.closed", queue="media", reason="100% {dark}")
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.INFO, "queue media is closed: 100% {dark}")
    assert telemetry.counters()["backhaul_gate_closed_total"] == before + 1


def test_a_field_that_is_missing_spoils_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="backhaul"):
        emit("queue.opened")
    assert caplog.messages == ["queue ? is open"]


def test_an_event_that_nobody_listens_to_is_counted_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    before = telemetry.counters()["backhaul_media_chunks_total"]
    with caplog.at_level(logging.CRITICAL, logger="backhaul"):
        emit("upload.advanced", upload="u", sent=1, size=2)
    assert caplog.messages == []
    assert telemetry.counters()["backhaul_media_chunks_total"] == before + 1


def test_every_metric_is_a_counter_of_one_event() -> None:
    metrics = [event.metric for event in CATALOGUE.values()]
    assert len(set(metrics)) == len(metrics)
    assert all(metric.startswith("backhaul_") and metric.endswith("_total") for metric in metrics)


def test_whoever_emits_an_event_gives_the_fields_of_its_sentence() -> None:
    wrong = []
    for place, event, given in emitted():
        wanted = {name for _, name, _, _ in string.Formatter().parse(CATALOGUE[event].sentence) if name}
        if not wanted <= given:
            wrong.append(f"{place}: {event} lacks {', '.join(sorted(wanted - given))}")
    assert wrong == []


def emitted() -> Iterator[tuple[str, str, set[str]]]:
    """Where an event is emitted, which one, and with which fields."""
    for package in ("backhaul", "config", "tasks", "workers"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "emit":
                    event = ast.literal_eval(node.args[0])
                    yield f"{file.name}:{node.lineno}", event, {word.arg for word in node.keywords if word.arg}
