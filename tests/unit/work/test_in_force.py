"""What holds on a node: words and readings together, in one statement."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from backhaul.bell import Node
from backhaul.database import Database
from backhaul.work import conditions, roster
from backhaul.work.in_force import in_force
from backhaul.work.reading import STALE_MS, Answer, Reading

NOW = 1_000_000
KIOSK = Node(name="kiosk", labels=frozenset({"region:eu"}))


def beat(database: Database, answer: Answer, *, name: str = "w1", node: str = "kiosk", read_at: int = NOW) -> None:
    seen = Reading(name="charging", answer=answer, since=1, read_at=read_at, source="UPower")
    with database.writing() as connection:
        roster.beat(connection, name=name, node=node, pid=1, queues=[], now=NOW, readings={"charging": seen})


def charging(database: Database, *, now: int = NOW, **given: Any) -> tuple[bool, str]:
    with database.reading() as connection:
        held, labels = in_force(connection, now, KIOSK, {}, **given)
    assert labels == {"region:eu"}
    return held["charging"].value, held["charging"].source


def test_where_there_are_no_probes_the_readings_of_the_nodes_workers_count(database: Database) -> None:
    beat(database, "no", node="attic")
    assert charging(database) == (True, "default")
    beat(database, "no")
    assert charging(database) == (False, "probe")
    assert charging(database, now=NOW + STALE_MS) == (False, "probe")
    assert charging(database, now=NOW + STALE_MS + 1) == (True, "default")


def test_a_process_with_probes_of_its_own_goes_by_those(database: Database) -> None:
    beat(database, "no")
    assert charging(database, readings={}) == (True, "default")


def test_a_run_goes_by_its_own_worker_and_else_by_the_latest_that_knows(database: Database) -> None:
    beat(database, "no", name="w1", read_at=NOW - 2_000)
    beat(database, "yes", name="w2", read_at=NOW - 1_000)
    beat(database, "unknown", name="w3")
    assert charging(database, worker_name="w1") == (False, "probe")
    assert charging(database) == charging(database, worker_name="gone") == (True, "probe")


def test_an_old_reading_of_a_live_worker_is_unknown(database: Database) -> None:
    beat(database, "no", read_at=NOW - STALE_MS - 1)
    assert charging(database) == (True, "default")


def test_what_is_read_less_often_is_good_for_longer(database: Database) -> None:
    seen = Reading(name="charging", answer="no", since=1, read_at=NOW - 110_000, source="it", good_for=120_000)
    with database.writing() as connection:
        roster.beat(connection, name="w1", node="kiosk", pid=1, queues=[], now=NOW, readings={"charging": seen})
    assert charging(database) == (False, "probe")
    assert charging(database, now=NOW + 10_001) == (True, "default")


def test_a_word_in_the_database_goes_before_the_reading_on_its_node(database: Database) -> None:
    beat(database, "no")
    with database.writing() as connection:
        conditions.set_condition(connection, "charging", True, now=NOW, node="attic")
    assert charging(database) == (False, "probe")
    with database.writing() as connection:
        conditions.set_condition(connection, "charging", True, now=NOW, node="kiosk")
    assert charging(database) == (True, "override")


@pytest.mark.parametrize("given", [{}, {"readings": {}}])
def test_it_costs_one_statement(database: Database, given: dict[str, Any]) -> None:
    beat(database, "no")
    said: list[str] = []

    def hear(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.extend([statement] * statement.startswith("SELECT"))

    event.listen(database.engine, "before_cursor_execute", hear)
    try:
        charging(database, **given)
    finally:
        event.remove(database.engine, "before_cursor_execute", hear)
    assert len(said) == 1


def test_quiet_hours_are_a_reading_that_a_word_goes_before(database: Database) -> None:
    night = Node(name="kiosk", quiet_hours=("00:00-12:00", "12:00-00:00"))
    with database.writing() as connection:
        held, _ = in_force(connection, NOW, night, {})
        assert (held["not_quiet"].value, held["not_quiet"].who) == (False, "quiet hours: 00:00-12:00, 12:00-00:00")
        conditions.set_condition(connection, "not_quiet", True, now=NOW, node="kiosk")
        held, _ = in_force(connection, NOW, night, {})
        assert (held["not_quiet"].value, held["not_quiet"].source) == (True, "override")
