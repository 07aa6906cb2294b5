"""How PostgreSQL goes about the looks that Beat takes each second, with many rows that are finished or wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event

from backhaul.database import Database
from backhaul.work import WorkRequest, ledger

T = 1_767_355_200_000


@pytest.fixture
def kind() -> str:
    return "postgresql"


def plans(database: Database, look: Callable[[Connection], object]) -> str:
    said: list[tuple[str, Any]] = []

    def hear(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        said.append((statement, parameters))

    with database.reading() as connection:
        event.listen(database.engine, "before_cursor_execute", hear)
        try:
            look(connection)
        finally:
            event.remove(database.engine, "before_cursor_execute", hear)
        return "\n".join(str(row[0]) for one in said for row in connection.exec_driver_sql(f"EXPLAIN {one[0]}", one[1]))


def test_the_looks_of_beat_walk_the_partial_indexes(database: Database) -> None:
    entries = [ledger.Entry(WorkRequest(task="shop.a", expires_after_ms=n % 2 or None), "sync") for n in range(6_000)]
    later = [ledger.Entry(WorkRequest(task="shop.a", initial_delay_ms=n), "sync") for n in range(1, 2_000)]
    with database.writing() as connection:
        ledger.enqueue_all(connection, entries, now=T)
        ledger.cancel_all(connection, now=T, by="test")
        ledger.enqueue_all(connection, later, now=T)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE backhaul_work")
    due = plans(
        database, lambda opened: ledger.due(opened, T + 5, ring_again_ms=1_000, limit=9, queues=["sync"], unheard=["x"])
    )
    assert due.count("ix_backhaul_work_unrung") == 4
    assert "Seq Scan on backhaul_work" not in due
    rung = plans(database, lambda opened: ledger.have_rung(opened, T + 5, ring_again_ms=1_000, queues=["sync"]))
    assert "Seq Scan" not in rung
    soonest = plans(database, lambda opened: ledger.next_due_at(opened, T, queues=["sync"]))
    assert soonest.count("ix_backhaul_work_unrung") == 2
    assert "ix_backhaul_work_expiring" in plans(database, lambda opened: ledger.has_expired(opened, T))
    assert "ix_backhaul_work_running" in plans(database, lambda opened: ledger.has_lost(opened, T))


def test_a_page_of_the_list_walks_an_index_in_its_order(database: Database) -> None:
    with database.writing() as connection:
        for n in range(4):  # what was made together has to be sorted by its ids
            entries = [ledger.Entry(WorkRequest(task="shop.a"), "sync") for _ in range(1_500)]
            ledger.enqueue_all(connection, entries, now=T + n)
            if n < 3:
                ledger.cancel_all(connection, now=T + n, by="test")
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE backhaul_work")
    for asked, half, other in (
        ({}, "unfinished", "finished"),
        ({"after": f".{T + 3}.z"}, "unfinished", "finished"),
        ({"after": f"{T + 1}.{T}.z"}, "finished", "unfinished"),
        ({"states": ["CANCELLED"]}, "finished", "unfinished"),
    ):
        plan = plans(database, lambda opened, asked=asked: ledger.latest(opened, limit=50, **asked))  # type: ignore[misc]
        assert f"Index Scan Backward using ix_backhaul_work_{half} " in plan
        assert f"ix_backhaul_work_{other} " not in plan
        assert "Sort" not in plan


def test_what_has_a_tag_is_looked_up_by_it_and_by_the_name_of_its_function(database: Database) -> None:
    entries = [ledger.Entry(WorkRequest(task="shop.a", tags=frozenset({f"t{n % 500}"})), "sync") for n in range(6_000)]
    with database.writing() as connection:
        ledger.enqueue_all(connection, entries, now=T)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE backhaul_work, backhaul_work_tag")
    with database.reading() as connection:
        assert len(ledger.latest(connection, tags=["t7"])) == 12
    for states in (None, ["ENQUEUED"]):
        plan = plans(
            database, lambda opened, states=states: ledger.latest(opened, tags=["t7"], states=states, limit=50)
        )  # type: ignore[misc]
        assert "Seq Scan" not in plan
        assert "pk_backhaul_work_tag" in plan
        assert "ix_backhaul_work_task" in plan
        assert "ix_backhaul_work_unfinished" not in plan
