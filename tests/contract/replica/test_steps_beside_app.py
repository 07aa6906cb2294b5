"""What a recovery, an inspection or a person does on PostgreSQL beside an app in the middle of a transaction: as if the
app had committed before."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from backhaul.errors import Misused
from backhaul.replica import checkpoint, enrol, parked, restored, stage
from backhaul.replica.arriving import untold
from backhaul.server.memory import MemoryServer
from backhaul.statements import run
from backhaul.wire import Record
from tests import disputes
from tests.contract.replica.beside_app import in_the_middle
from tests.contract.replica.conftest import MakeReplica
from tests.contract.replica.test_reviving import edit_what_is_forgotten
from tests.contract.replica.test_rounds import assert_equal
from tests.disputes import all_equal, contested, edit_line, open_numbers, populate, resolve, undo
from tests.replicas import Replica, captured


@pytest.fixture
def replicas(make_on: MakeReplica) -> tuple[Replica, Replica]:
    """One on PostgreSQL, one on SQLite; both have the tag `old`."""
    here, there = make_on("postgresql"), make_on("sqlite")
    here.write("INSERT INTO tag VALUES ('old', 'from the beginning')")
    here.sync()
    there.sync()
    return here, there


@pytest.fixture
def pair(make_on: MakeReplica) -> tuple[Replica, Replica]:
    """The second one is on PostgreSQL."""
    a, b = (make_on(kind, schema=disputes.SCHEMA, rules=disputes.RULES) for kind in ("sqlite", "postgresql"))
    return populate(a, b)


def test_what_the_app_is_about_to_write_is_no_edit_that_nobody_saw(replicas: tuple[Replica, Replica]) -> None:
    """The old value would go out after it, as an edit of now."""
    here, there = replicas
    here.write("CREATE TABLE copy (code TEXT PRIMARY KEY, label TEXT)")
    here.write("INSERT INTO copy SELECT * FROM tag")
    here.write("DROP TABLE tag")
    here.write("ALTER TABLE copy RENAME TO tag")
    enrol.renew(here.database, here.remote)
    in_the_middle(here, "UPDATE tag SET label = 'ours'", here.pull)
    assert captured(here) == [("tag", "update", ["old"], {"label": "ours"})]
    here.sync()
    there.sync()
    assert there.rows("tag") == [("old", "ours")]
    assert_equal((here, there))


def test_what_the_app_is_about_to_write_goes_before_what_a_restored_server_is_offered(
    replicas: tuple[Replica, Replica],
) -> None:
    here, _ = replicas
    lost = Record(table="tag", key=["old"], version=1, whole=True, fields={"label": "from a backup"})
    with here.database.writing() as connection:
        stage.keep(connection, [lost])
        checkpoint.recover(connection, "offer")

    def offer() -> int:
        options: Any = {"clock": here.clock, "context": here.context, "arriving": untold}
        return restored.go_on(here.database, here.remote, limit=10, **options)

    assert in_the_middle(here, "UPDATE tag SET label = 'ours'", offer) == 0
    assert captured(here) == [("tag", "update", ["old"], {"label": "ours"})]


def test_what_a_restored_server_is_offered_of_an_aggregate_is_one_group(pair: tuple[Replica, Replica]) -> None:
    a, _ = pair
    with a.database.writing() as connection:
        checkpoint.recover(connection, "offer")  # and nothing was fetched: it has lost everything
    restored.go_on(a.database, a.remote, clock=a.clock, context=a.context, limit=10, arriving=untold)
    with a.database.reading() as connection:
        rows = run(connection, "SELECT table_name, group_id FROM backhaul_outbox ORDER BY id").all()
    groups = {group for table, group in rows if table in ("invoice", "line")}
    assert len(groups) == 1
    assert None not in groups
    assert {group for table, group in rows if table == "note"} == {None}


def test_what_the_app_is_about_to_write_is_part_of_the_conflict_that_is_resolved(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    contested(a, b)
    number = in_the_middle(b, "UPDATE note SET body = 'later'", lambda: resolve(b, "theirs"))
    assert b.rows("note") == [("n", "of a", "red")]
    assert all_equal(a, b)
    assert open_numbers(b) == []
    undo(b, number)
    assert b.rows("note") == [("n", "later", "red")]


def test_no_choice_is_undone_under_an_aggregate_that_the_app_is_about_to_write(
    pair: tuple[Replica, Replica],
) -> None:
    a, b = pair
    edit_line(a, "l1", 10)
    edit_line(b, "l2", 20)
    a.sync()
    b.sync()
    number = resolve(b, "theirs")
    with pytest.raises(Misused, match="was changed since"):
        in_the_middle(b, "UPDATE line SET amount = 99 WHERE id = 'l2'", lambda: undo(b, number))
    assert [row[2] for row in b.rows("line")] == [10, 99]


def test_a_retry_takes_along_what_the_app_is_about_to_write(make_on: MakeReplica, server: MemoryServer) -> None:
    a, b = edit_what_is_forgotten(partial(make_on, "postgresql"), server)
    sent = in_the_middle(
        b, "UPDATE article SET name = 'later'", lambda: parked.retry(b.database, [], now=b.clock.now())
    )
    assert sent == 3
    assert all_equal(a, b)
    assert a.rows("article") == b.rows("article") == [("x", 17, "later", "a green box, open")]
