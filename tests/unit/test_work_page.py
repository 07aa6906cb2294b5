"""The page of work: its one table is whole, and each of its tests exists."""

from __future__ import annotations

import re

import pytest

from backhaul.work import Context
from tests.conftest import ROOT
from tests.pages import not_there, rows_of

PAGE = (ROOT / "docs" / "work.md").read_text("utf-8")
COLUMNS = ["feature", "WorkManager", "Backhaul", "test"]
ROWS = rows_of(PAGE, COLUMNS)
SCENARIOS = {*range(1, 13), *range(17, 27), 30, 31, *range(34, 44), 45, 46, 47, 50, 51, 53, 55, 56, 57, 60} | {
    *range(62, 67),
    *(68, 69, 73, 74),
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_every_feature_names_tests_that_exist(row: list[str]) -> None:
    assert len(row) == len(COLUMNS)
    assert all(row)
    assert not_there(row[-1]) == []


def test_no_feature_stands_twice() -> None:
    said = [row[0] for row in ROWS]
    assert len(said) > 40
    assert sorted(said) == sorted(set(said))


def test_every_scenario_of_the_conformance_list_has_its_test_in_the_table() -> None:
    named = {int(number) for row in ROWS for number in re.findall(r"::test_(?:scenario_)?(\d+)_", row[-1])}
    assert SCENARIOS - named == set()


def test_every_deviation_has_a_reason() -> None:
    deviations = rows_of(PAGE, ["deviation", "WorkManager", "reason"])
    assert len(deviations) > 10
    assert [row for row in deviations if len(row) != 3 or not all(row)] == []
    assert len({row[0] for row in deviations}) == len(deviations)


def test_the_page_names_every_part_of_the_context() -> None:
    said = {name for row in rows_of(PAGE, ["of the context", "what it is"]) for name in re.findall(r"`(\w+)", row[0])}
    made = {"input", "work", "database", "clock"}  # by each context for itself
    inside = {"keep_progress", "look"}
    assert said == made | {name for name in vars(Context) if not name.startswith("_")} - inside
