"""On PostgreSQL changes are not committed in the order of their ids; work that waits for one misses none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, text

from backhaul.work import Constraints, OneTimeWork, TableTrigger, ledger
from backhaul.work.changes import look_at_tables, note_tables
from backhaul.work.ledger.positions import UnderWay
from tests.contract.work.test_at_once import Beside
from tests.contract.work.test_looks import plans
from tests.unit.work.desk import Desk

QUIET = 10_000


@pytest.fixture
def kind() -> str:
    return "postgresql"


def capture(connection: Connection, table: str) -> None:
    """As the triggers do: the group is the transaction."""
    statement = (
        "INSERT INTO backhaul_outbox (group_id, table_name, key, kind, captured_at, seen_hlc, base)"
        " VALUES (CAST(pg_current_xact_id() AS text), :table, '[1]', 'delete', 0, 0, 0)"
    )
    connection.execute(text(statement), {"table": table})


@contextmanager
def captured(desk: Desk, table: str) -> Iterator[Connection]:
    """A transaction of the app's that has written, and commits at the end."""
    with desk.engine.begin() as connection:
        capture(connection, table)
        yield connection


def watching() -> OneTimeWork:
    return OneTimeWork("shop.mail", constraints=Constraints(triggers=(TableTrigger("photo"),)))


def waiting(desk: Desk) -> OneTimeWork:
    work = watching()
    desk.works.enqueue(work)
    return work


def positions(desk: Desk) -> frozenset[ledger.Position]:
    with desk.database.reading() as connection:
        return ledger.watched(connection).tables["photo"]


def test_what_is_written_before_the_enqueue_and_committed_after_it_starts_the_work(desk: Desk) -> None:
    with captured(desk, "photo"):
        with captured(desk, "photo"):
            pass
        work = waiting(desk)
        assert look_at_tables(desk.database, desk.now) == 0
    assert look_at_tables(desk.database, desk.now) == 1
    assert desk.row(work).due_at == desk.now + QUIET


def test_what_is_written_before_a_look_and_committed_after_it_is_another_change(desk: Desk) -> None:
    work = waiting(desk)
    with captured(desk, "photo"):
        with captured(desk, "photo"):
            pass
        look_at_tables(desk.database, desk.now)
        with captured(desk, "photo"):  # a later one: the position moves on, past one that is still under way
            pass
        desk.clock.advance(1_000)
        look_at_tables(desk.database, desk.now)
        first = desk.row(work).due_at
    desk.clock.advance(1_000)
    with desk.database.writing() as connection:  # a pull sees it, too
        note_tables(connection, desk.now)
    assert (first, desk.row(work).due_at) == (desk.now - 1_000 + QUIET, desk.now + QUIET)
    desk.clock.advance(1_000)
    assert look_at_tables(desk.database, desk.now) == 0  # once


def test_what_took_a_low_id_under_a_high_number_starts_the_work(desk: Desk) -> None:
    """Nothing with a higher number has ended: a snapshot does not name it among what is running."""
    with desk.engine.connect() as first:
        capture(first, "visit")
        with captured(desk, "photo"):
            capture(first, "visit")
            first.commit()
            work = waiting(desk)
    assert look_at_tables(desk.database, desk.now) == 1
    assert desk.row(work).due_at == desk.now + QUIET


def test_what_leaves_the_outbox_while_somebody_else_holds_what_waits_for_it_has_been_noted(desk: Desk) -> None:
    """A change of the app's own does not come back in the feed: when it has left, nobody could see it any more."""
    work = waiting(desk)
    with captured(desk, "photo"):
        pass

    def pull() -> None:
        with desk.database.writing() as connection:
            note_tables(connection, desk.now)
            connection.execute(text("DELETE FROM backhaul_outbox"))

    pulling = Beside(desk, pull)
    with desk.engine.begin() as other:
        other.execute(text("SELECT FROM backhaul_work_trigger FOR UPDATE"))
        pulling.start()
    pulling.end()
    assert desk.row(work).due_at == desk.now + QUIET


def test_a_pull_that_has_waited_counts_nothing_again_that_was_noted_meanwhile(desk: Desk) -> None:
    work = waiting(desk)
    with captured(desk, "photo"):
        pass

    def pull() -> None:
        with desk.database.writing() as connection:
            note_tables(connection, desk.now + 5_000)

    pulling = Beside(desk, pull)
    with desk.engine.begin() as other:
        moves = ledger.moves(other, ledger.watched(other).tables)
        ledger.touch_tables(other, moves, desk.now)
        pulling.start()
    pulling.end()
    assert desk.row(work).due_at == desk.now + QUIET


def test_a_pull_that_brings_nothing_of_what_is_waited_for_waits_for_nobody(desk: Desk) -> None:
    waiting(desk)
    with captured(desk, "visit"):
        pass
    with desk.engine.begin() as other, desk.database.writing() as connection:
        other.execute(text("SELECT FROM backhaul_work_trigger FOR UPDATE"))
        connection.exec_driver_sql("SET LOCAL lock_timeout = '10s'")
        assert note_tables(connection, desk.now, arriving={"visit"}) == 0


def test_what_the_transaction_of_the_enqueue_wrote_before_it_does_not_count(desk: Desk) -> None:
    work = watching()
    with captured(desk, "photo") as connection:
        desk.works.enqueue(work, connection=connection)
    assert look_at_tables(desk.database, desk.now) == 0
    assert desk.row(work).next_run_at is None


def test_what_is_under_way_is_kept_in_mind_as_long_as_it_is(desk: Desk) -> None:
    with captured(desk, "visit"):
        pass
    with captured(desk, "visit"):
        waiting(desk)
        for _ in range(2):
            look_at_tables(desk.database, desk.now)
        (at,) = positions(desk)
        assert at.under_way is not None
        assert at.under_way.before > 0
        assert look_at_tables(desk.database, desk.now) == 0
        assert positions(desk) == {at}  # a look that finds nothing new writes nothing
    assert look_at_tables(desk.database, desk.now) == 0
    assert positions(desk) == {ledger.Position(at.last)}


def test_of_two_looks_at_once_the_first_stands(desk: Desk) -> None:
    waiting(desk)
    with captured(desk, "photo"):
        pass
    with desk.database.reading() as connection:
        moves = ledger.moves(connection, ledger.watched(connection).tables)
    with captured(desk, "photo"):
        pass
    look_at_tables(desk.database, desk.now)
    there = positions(desk)
    with desk.database.writing() as connection:
        ledger.touch_tables(connection, moves, desk.now)
    assert positions(desk) == there


def test_work_that_the_app_holds_is_given_its_time_once_it_is_free(desk: Desk) -> None:
    """A look waits for no work, and so meets nobody crosswise who holds one and waits for its triggers."""
    held, other = watching(), watching()
    desk.works.enqueue_unique("it", "append", held)
    desk.works.enqueue(other)
    with captured(desk, "photo"):
        pass
    with desk.engine.begin() as connection:
        desk.works.enqueue_unique("it", "append", OneTimeWork("shop.then"), connection=connection)
        assert look_at_tables(desk.database, desk.now) == 1
    assert (desk.row(held).next_run_at, desk.row(other).due_at) == (None, desk.now + QUIET)
    assert look_at_tables(desk.database, desk.now) > 0
    assert desk.row(held).due_at == desk.now + QUIET


def test_a_look_walks_the_key_of_the_outbox(desk: Desk) -> None:
    with desk.engine.begin() as connection:
        statement = (
            "INSERT INTO backhaul_outbox (group_id, table_name, key, kind, captured_at, seen_hlc, base)"
            " SELECT '1', 'visit', '[1]', 'delete', 0, 0, 0 FROM generate_series(1, 5000)"
        )
        connection.execute(text(statement))
    with desk.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE backhaul_outbox")
    tables = {"photo": frozenset({ledger.Position(4_990, 4_980, UnderWay(frozenset({7, 8}), 9))})}
    plan = plans(desk.database, lambda opened: ledger.moves(opened, tables))
    assert plan.count("pk_backhaul_outbox") == 3
    assert "Seq Scan" not in plan
