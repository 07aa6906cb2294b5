from __future__ import annotations

import pytest

from backhaul.server import statements


def test_what_is_written_at_once_is_bounded_by_its_text_and_nothing_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statements, "MOST_TEXT", 10)
    rows = [("a" * size, number, None) for number, size in enumerate((3, 3, 3, 4, 20, 1, 1))]
    parts = list(statements._parts(rows))
    assert [row for part in parts for row in part] == rows
    assert [len(part) for part in parts] == [4, 1, 2]
    assert [list(part) for part in statements._parts([])] == [[]]
