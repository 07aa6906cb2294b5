"""Tables of the pages whose last column names tests: read here, and held against the files."""

from __future__ import annotations

import re
from functools import cache

from tests.conftest import ROOT


def rows_of(page: str, columns: list[str]) -> list[list[str]]:
    """The cells of every row of the tables with these columns, without heads and rules."""
    head = f"| {' | '.join(columns)} |"
    found: list[list[str]] = []
    inside = False
    for line in page.splitlines():
        inside = line == head or (inside and line.startswith("|"))
        if inside and line != head and not line.startswith("|---"):
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


def not_there(cell: str) -> list[str]:
    """What a cell names that is no test of its file. Raises AssertionError when it names none at all."""
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", cell)
    assert named, "a row without a test is a wish"
    return [f"{file}::{name}" for file, name in named if name not in _names_in(file)]


@cache
def _names_in(file: str) -> set[str]:
    path = ROOT / "tests" / file
    if not path.exists():
        return set()
    return set(re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE))
