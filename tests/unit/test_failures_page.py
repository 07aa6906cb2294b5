"""The page of failures: each of its tests exists, and no problem that the server names is without a row."""

from __future__ import annotations

import re

import pytest

from backhaul.server.problems import CATALOGUE
from tests.conftest import ROOT
from tests.pages import not_there, rows_of

COLUMNS = ["what happens", "what Backhaul does", "what a person sees", "test"]
PAGE = (ROOT / "docs" / "failures.md").read_text("utf-8")


def rows() -> list[list[str]]:
    return rows_of(PAGE, COLUMNS)


def test_every_section_is_a_table_of_the_same_four_columns() -> None:
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert len(sections) == 9
    assert [
        section.count("| what happens | what Backhaul does | what a person sees | test |") for section in sections
    ] == [1] * 9


def test_no_row_stands_outside_of_its_table() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert len(lines) == len(rows()) + 2 * 9  # each table's head and rule


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:60])
def test_every_row_is_whole_and_names_tests_that_exist(row: list[str]) -> None:
    assert len(row) == len(COLUMNS)
    assert all(row)
    assert not_there(row[-1]) == []


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_problem_of_the_server_has_a_row(name: str) -> None:
    assert any(f"`{name}`" in row[0] for row in rows())


def test_no_row_stands_twice() -> None:
    said = [row[0] for row in rows()]
    assert sorted(said) == sorted(set(said))
