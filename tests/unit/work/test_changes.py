"""Looking at tables and files: what has changed gives the work that waits for it its time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert

from backhaul.database import Database
from backhaul.schema import outbox
from backhaul.work import Work, ledger
from backhaul.work.changes import look_at_files, look_at_tables, note_tables
from backhaul.work.constraints import FileTrigger, TableTrigger
from backhaul.work.signatures import look
from tests.unit.work.bench import Bench


@pytest.fixture
def bench(database: Database, clock: Any) -> Bench:
    return Bench(database, clock)


def waiting(bench: Bench, *triggers: Any, update: int = 10_000, most: int = 30_000) -> Work:
    return bench.enqueue(triggers=triggers, trigger_update_ms=update, trigger_most_ms=most)


def change(bench: Bench, table: str) -> None:
    values = {"table_name": table, "key": "[1]", "kind": "update", "captured_at": 1, "seen_hlc": 0, "base": 0}
    with bench.database.writing() as connection:
        connection.execute(insert(outbox).values(values))


def test_31_a_change_every_five_seconds_fires_at_the_most_delay_after_the_first(bench: Bench) -> None:
    work, first = waiting(bench, TableTrigger("photo")), bench.clock.now()
    for _ in range(7):
        change(bench, "photo")
        look_at_tables(bench.database, bench.clock.now())
        if bench.row(work).due_at <= bench.clock.now():
            break
        bench.clock.advance(5_000)
    assert bench.row(work).due_at == first + 30_000 == bench.clock.now()
    bench.run(work, lambda context: {"for": list(context.triggered)})
    assert bench.row(work).output == {"for": ["photo"]}


def test_a_change_that_is_quiet_fires_after_the_update_delay(bench: Bench) -> None:
    work = waiting(bench, TableTrigger("photo"))
    change(bench, "visit")
    assert look_at_tables(bench.database, bench.clock.now()) == 0
    change(bench, "photo")
    assert look_at_tables(bench.database, bench.clock.now()) == 1
    assert bench.row(work).due_at == bench.clock.now() + 10_000
    bench.clock.advance(1_000)
    assert look_at_tables(bench.database, bench.clock.now()) == 0  # the same change is no other one
    assert bench.row(work).due_at == bench.clock.now() + 9_000


def test_what_a_pull_brings_is_a_change(bench: Bench) -> None:
    work = waiting(bench, TableTrigger("photo"))
    with bench.database.writing() as connection:
        assert note_tables(connection, bench.clock.now(), arriving={"visit"}) == 0
        assert note_tables(connection, bench.clock.now(), arriving={"visit", "photo"}) == 1
    assert bench.row(work).due_at == bench.clock.now() + 10_000


def test_a_file_that_changes_fires_and_one_that_does_not_costs_no_write(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    work = waiting(bench, FileTrigger(file))
    look_at_files(bench.database, bench.clock.now())  # how it is now
    writes: list[str] = []
    event.listen(
        bench.database.engine,
        "before_cursor_execute",
        lambda _c, _k, statement, *_: writes.append(statement) if statement.startswith("UPDATE") else None,
    )
    assert (look_at_files(bench.database, bench.clock.now()), writes) == (0, [])
    file.write_text("1")
    assert look_at_files(bench.database, bench.clock.now()) == 1
    assert bench.row(work).due_at == bench.clock.now() + 10_000


def test_a_second_work_for_the_same_file_sees_it_as_it_was_when_it_began_to_wait(bench: Bench, tmp_path: Path) -> None:
    trigger = FileTrigger(tmp_path / "list.csv")
    waiting(bench, trigger)
    look_at_files(bench.database, bench.clock.now())
    trigger_path = Path(trigger.path)
    trigger_path.write_text("1")
    before = {trigger: look(trigger)}
    look_at_files(bench.database, bench.clock.now())
    second = waiting(bench, trigger)
    look_at_files(bench.database, bench.clock.now())
    assert bench.row(second).due_at == ledger.NEVER
    trigger_path.write_text("12")
    assert {trigger: look(trigger)} != before
    look_at_files(bench.database, bench.clock.now())
    assert bench.row(second).due_at == bench.clock.now() + 10_000
