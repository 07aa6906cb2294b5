"""A pull on PostgreSQL beside an app in the middle of a transaction: what the app commits stands over the page."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import psycopg
import pytest

from backhaul.errors import DatabaseBusy
from backhaul.replica import aside, stage, unseen
from backhaul.replica.strategies import Rules
from tests.contract.replica.beside_app import address, in_the_middle, look_for_deadlocks_after
from tests.contract.replica.conftest import MakeReplica
from tests.contract.replica.test_rounds import assert_equal
from tests.replicas import Replica
from tests.waiting import eventually

INVOICES = """
    CREATE TABLE invoice (id TEXT PRIMARY KEY, note TEXT);
    CREATE TABLE line (id TEXT PRIMARY KEY, invoice TEXT NOT NULL REFERENCES invoice (id) ON DELETE CASCADE, what TEXT);
"""


@pytest.fixture
def replicas(make_on: MakeReplica) -> tuple[Replica, Replica]:
    """One on PostgreSQL, one on SQLite; both have the tag `old`."""
    here, there = make_on("postgresql"), make_on("sqlite")
    here.write("INSERT INTO tag VALUES ('old', 'from the beginning')")
    here.push()
    there.sync()
    return here, there


def pull_in_the_middle(replica: Replica, statement: str) -> None:
    in_the_middle(replica, statement, replica.pull)


def test_an_update_that_is_not_committed_yet_stands_over_the_page(replicas: tuple[Replica, Replica]) -> None:
    here, there = replicas
    there.write("UPDATE tag SET label = 'theirs'")
    there.push()
    pull_in_the_middle(here, "UPDATE tag SET label = 'ours'")
    assert here.rows("tag") == [("old", "ours")]
    here.sync()
    there.sync()
    assert_equal((here, there))


def test_an_insert_that_is_not_committed_yet_stands_over_the_page(replicas: tuple[Replica, Replica]) -> None:
    here, there = replicas
    there.write("INSERT INTO tag VALUES ('new', 'theirs')")
    there.push()
    pull_in_the_middle(here, "INSERT INTO tag VALUES ('new', 'ours')")
    assert here.rows("tag") == [("new", "ours"), ("old", "from the beginning")]
    here.sync()
    there.sync()
    assert_equal((here, there))


def test_a_delete_that_is_not_committed_yet_stands_over_the_page(replicas: tuple[Replica, Replica]) -> None:
    here, there = replicas
    there.write("UPDATE tag SET label = 'theirs'")
    there.push()
    pull_in_the_middle(here, "DELETE FROM tag")
    assert here.rows("tag") == []
    here.sync()
    there.sync()
    assert_equal((here, there))


def test_what_is_deleted_there_stays_where_the_app_is_about_to_edit_it(replicas: tuple[Replica, Replica]) -> None:
    here, there = replicas
    there.write("DELETE FROM tag")
    there.push()
    pull_in_the_middle(here, "UPDATE tag SET label = 'ours'")
    assert here.rows("tag") == [("old", "ours")]
    here.sync()
    there.sync()
    assert_equal((here, there))


def test_what_was_overtaken_is_laid_under_what_the_app_is_about_to_write(replicas: tuple[Replica, Replica]) -> None:
    """Whole, as it is on the server: so an earlier value of our own came back over the later one."""
    here, there = replicas
    here.write("UPDATE tag SET label = 'ours, first'")
    there.write("UPDATE tag SET label = 'theirs'")
    there.push()
    here.pull()  # theirs is withheld: ours was not answered
    here.push()
    pull_in_the_middle(here, "UPDATE tag SET label = 'ours, second'")
    assert here.rows("tag") == [("old", "ours, second")]
    here.sync()
    there.sync()
    assert_equal((here, there))


def test_locks_wait_for_no_reader_and_no_row_beside(replicas: tuple[Replica, Replica]) -> None:
    """The app reads, refers to and writes what is not in the page while the page is being applied."""
    here, there = replicas
    there.write("INSERT INTO customer (id, name) VALUES (1, 'Ada')")
    there.push()
    here.pull()
    there.write("UPDATE customer SET phone = '1'")
    there.push()
    with psycopg.connect(address(here)) as app:
        app.execute("INSERT INTO invoice (customer_id, total) VALUES (1, 2)")  # holds the customer's key
        app.execute("UPDATE tag SET label = 'ours'")
        assert here.pull().records == 1
        app.commit()
    assert here.rows("customer")[0][:3] == (1, "Ada", "1")


def invoices(make_on: MakeReplica, **rules: Rules) -> tuple[Replica, Replica]:
    """One on PostgreSQL, one on SQLite; both have two invoices, one of them with a line."""
    here, there = (make_on(kind, schema=INVOICES, rules=rules) for kind in ("postgresql", "sqlite"))
    here.write("INSERT INTO invoice VALUES ('i', 'old'), ('other', 'old')")
    here.write("INSERT INTO line VALUES ('l', 'i', 'old')")
    here.sync()
    there.sync()
    return here, there


@pytest.mark.parametrize("staged", [False, True])
def test_an_aggregate_that_the_app_is_about_to_write_is_withheld_as_a_whole(
    make_on: MakeReplica, monkeypatch: pytest.MonkeyPatch, staged: bool
) -> None:
    here, there = invoices(make_on, line=Rules(aggregate="invoice"))
    there.write("UPDATE invoice SET note = 'theirs' WHERE id = 'other'")
    there.write("UPDATE line SET what = 'theirs'")
    there.write("UPDATE invoice SET note = 'theirs' WHERE id = 'i'")
    there.push()
    monkeypatch.setattr(stage, "CHUNK", 1)
    in_the_middle(
        here, "UPDATE line SET what = 'ours'", lambda: here.pull(**({"limit": 1, "most_held": 1} if staged else {}))
    )
    assert here.rows("invoice") == [("i", "old"), ("other", "theirs")]
    assert here.rows("line") == [("l", "i", "ours")]


def test_a_row_that_the_app_is_about_to_add_is_not_taken_along_by_a_delete(make_on: MakeReplica) -> None:
    here, there = invoices(make_on)
    there.write("DELETE FROM line")
    there.write("DELETE FROM invoice WHERE id = 'i'")
    there.push()
    pull_in_the_middle(here, "INSERT INTO line VALUES ('mine', 'i', 'ours')")
    assert here.rows("line") == [("mine", "i", "ours")]
    assert here.rows("invoice") == [("i", "old"), ("other", "old")]
    assert [row[0] for row in here.asked("SELECT key FROM backhaul_aside")] == ['["i"]']


def test_what_is_set_aside_stays_while_the_app_is_about_to_edit_it(replicas: tuple[Replica, Replica]) -> None:
    """The server has forgotten it, and has not judged the edit."""
    here, _ = replicas
    with here.database.writing() as connection:
        connection.exec_driver_sql("SELECT set_config('backhaul.muted', '1', true)")
        connection.exec_driver_sql("INSERT INTO tag VALUES ('gone', 'there')")
        aside.keep(connection, "tag", '["gone"]', reason=aside.HELD, now=1)
    pull_in_the_middle(here, "UPDATE tag SET label = 'ours' WHERE code = 'gone'")
    assert here.rows("tag") == [("gone", "ours"), ("old", "from the beginning")]
    assert here.asked("SELECT key, reason FROM backhaul_aside") == [('["gone"]', aside.HELD)]


def test_what_was_not_seen_stays_noted_while_the_app_is_about_to_write_it(replicas: tuple[Replica, Replica]) -> None:
    here, _ = replicas
    here.sync()
    with here.database.writing() as connection:
        unseen.note(connection, "tag", {'["old"]': {"label"}}, seen=0)
    pull_in_the_middle(here, "UPDATE tag SET label = 'ours'")
    here.push()
    assert here.asked("SELECT kind, base FROM backhaul_outbox") == [("update", 0)]


def test_the_app_is_never_ended_because_a_pull_waits_for_it(replicas: tuple[Replica, Replica]) -> None:
    """Each holds what the other one wants: the database ends whoever finds that out, and that must not be the app."""
    here, there = replicas
    there.write("INSERT INTO tag VALUES ('new', 'theirs')")
    there.push()
    here.pull()
    there.write("UPDATE tag SET label = 'theirs, again' WHERE code = 'new'")
    there.write("UPDATE tag SET label = 'theirs, again' WHERE code = 'old'")
    there.push()
    look_for_deadlocks_after(here, "200ms")
    given_up = Event()
    with psycopg.connect(address(here)) as app, ThreadPoolExecutor(1) as other:
        app.execute("UPDATE tag SET label = 'ours' WHERE code = 'old'")

        def go_on() -> None:
            eventually(lambda: given_up.is_set() or has_waited(here, "200ms"), what="the pull has waited for long")
            app.execute("UPDATE tag SET label = 'ours' WHERE code = 'new'")
            app.commit()

        gone_on = other.submit(go_on)
        with pytest.raises(DatabaseBusy, match="another program is writing"):
            here.pull()
        given_up.set()
        gone_on.result()
    here.sync()
    there.sync()
    assert here.rows("tag") == [("new", "ours"), ("old", "ours")]
    assert_equal((here, there))


def has_waited(replica: Replica, time: str) -> bool:
    (count,) = replica.asked(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND clock_timestamp() - waitstart > INTERVAL '" + time + "'"
    )
    return count == (1,)
