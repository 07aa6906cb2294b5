"""The page of failures: each of its tests exists, and no problem that the server names is without a row."""

from __future__ import annotations

import re
from functools import cache

import pytest

from backhaul.server.problems import CATALOGUE
from tests.conftest import ROOT

COLUMNS = ["what happens", "what Backhaul does", "what a person sees", "test"]
PAGE = (ROOT / "docs" / "failures.md").read_text("utf-8")


def rows() -> list[list[str]]:
    """The cells of every row, without heads and rules."""
    lines = [line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith("|---")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row != COLUMNS]


@cache
def names_in(file: str) -> set[str]:
    path = ROOT / "tests" / file
    return (
        set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE))
        if path.exists()
        else set()
    )


def test_every_section_is_a_table_of_the_same_four_columns() -> None:
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert len(sections) == 7
    assert [
        section.count("| what happens | what Backhaul does | what a person sees | test |") for section in sections
    ] == [1] * 7


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:60])
def test_every_row_is_whole_and_names_tests_that_exist(row: list[str]) -> None:
    assert len(row) == len(COLUMNS)
    assert all(row)
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row[-1])
    assert named, "a row without a test is a wish"
    assert [f"{file}::{name}" for file, name in named if name not in names_in(file)] == []


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_problem_of_the_server_has_a_row(name: str) -> None:
    assert any(f"`{name}`" in row[0] for row in rows())


def test_no_row_stands_twice() -> None:
    said = [row[0] for row in rows()]
    assert sorted(said) == sorted(set(said))
