"""How many statements it takes to run one work, and to look when there is nothing to do: that is done once for each
work, and each second for ever. On PostgreSQL each is a round trip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event

from backhaul.work import OneTimeWork, ledger
from tests.contract.work.test_beside_the_app import scheduler
from tests.unit.work.desk import Desk
from workers import beat

__all__ = ["scheduler"]  # a fixture


def statements(desk: Desk, do: Callable[[], object]) -> list[str]:
    """What this says to the database, but for the beginnings and ends of transactions."""
    said: list[str] = []

    def hear(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith(("BEGIN", "SET TRANSACTION")):
            said.append(" ".join(statement.split()))

    event.listen(desk.database.engine, "before_cursor_execute", hear)
    try:
        do()
    finally:
        event.remove(desk.database.engine, "before_cursor_execute", hear)
    return said


def enqueued(desk: Desk) -> OneTimeWork:
    work = OneTimeWork("shop.a")
    desk.works.enqueue(work)
    return work


def claim(desk: Desk, work: OneTimeWork) -> None:
    with desk.database.writing() as connection:
        assert ledger.claim(connection, work.id, 0, worker="w1", now=desk.now, lease_ms=1)


def test_a_claim_is_one_statement(desk: Desk) -> None:
    work = enqueued(desk)
    assert len(statements(desk, lambda: claim(desk, work))) == 1


def test_what_nothing_waits_for_is_settled_in_one_statement(desk: Desk) -> None:
    work = desk.claim(enqueued(desk))
    assert len(statements(desk, lambda: desk.settle(ledger.succeed, work))) == 1


def test_beat_takes_eight_statements_to_find_that_there_is_nothing_to_do(
    desk: Desk, scheduler: beat.LedgerScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is lost, has expired, waits for a change or a file, and is to be pushed; who is alive, what is due, and when
    next."""
    monkeypatch.setattr(beat, "look_at_files", lambda *_: None)  # one more, when that has rested long enough
    desk.run(enqueued(desk))
    scheduler.tick()
    said = statements(desk, scheduler.tick)
    assert len(said) == 8, "\n".join(said)
    assert all(one.startswith("SELECT") for one in said)
