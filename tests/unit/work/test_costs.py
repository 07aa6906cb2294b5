"""What a work costs when it is made, counted and not timed."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from backhaul.work import OneTimeWork, data
from tests.unit.work.desk import Desk


def test_the_input_of_a_work_is_written_as_text_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []
    encode = data._canonical

    def see(value: Any) -> bytes:
        written.append(value)
        return encode(value)

    monkeypatch.setattr(data, "_canonical", see)
    desk.works.enqueue([OneTimeWork("shop.mail", input={"n": n}) for n in range(3)])
    assert written == [{"n": n} for n in range(3)]


def test_of_many_rows_only_what_differs_is_given_with_each(desk: Desk) -> None:
    given: list[Any] = []

    @event.listens_for(desk.database.engine, "before_cursor_execute")
    def see(_connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
        if many and statement.startswith("INSERT INTO backhaul_work ("):
            given.extend(values)

    works = [OneTimeWork("shop.mail", input={"n": n}, max_attempts=n + 1) for n in range(200)]
    desk.works.enqueue(works)
    assert len(given) == 200
    assert {len(row) for row in given} <= set(range(2, 13))
    rows = {row.id: row for row in desk.works.query()}
    for n, work in enumerate(works):
        row = rows[work.id]
        assert (row.input, row.max_attempts, row.state, row.due_at) == ({"n": n}, n + 1, "ENQUEUED", desk.now)
        assert (row.name, row.interval_ms, row.generation, row.function) == (None, 0, 0, None)
