"""Deletes that would take along what another one refers to them with, and foreign keys that refer in a circle."""

from __future__ import annotations

import pytest

from backhaul.replica import parked
from tests.contract.replica.conftest import MakeReplica
from tests.replicas import Replica

pytestmark = pytest.mark.alternating("sqlite", "postgresql")

INVOICES = """
    CREATE TABLE invoice (id TEXT PRIMARY KEY, total INTEGER);
    CREATE TABLE line (id TEXT PRIMARY KEY, invoice TEXT REFERENCES invoice (id) ON DELETE {action}, what TEXT);
    CREATE TABLE note (id TEXT PRIMARY KEY, line TEXT REFERENCES line (id) ON DELETE {action}, what TEXT);
"""
ACTIONS = ["CASCADE", "SET NULL", "SET DEFAULT"]


def shop(make: MakeReplica, action: str) -> tuple[Replica, Replica]:
    """Two replicas with an invoice of two lines; apps that have their foreign keys enforced."""
    schema = INVOICES.format(action=action)
    a, b = make(schema=schema), make(schema=schema)
    for one in (a, b):
        if not hasattr(one.app, "transaction"):
            one.app.execute("PRAGMA foreign_keys = ON")
    a.write("INSERT INTO invoice VALUES ('i', 1), ('other', 2)")
    a.write("INSERT INTO line VALUES ('x', 'i', 'of a'), ('y', 'i', 'of a')")
    a.write("INSERT INTO note VALUES ('n', 'x', 'of a')")
    a.sync()
    b.sync()
    return a, b


def set_aside(replica: Replica) -> dict[str, str]:
    return {
        f"{table} {key}": reason
        for table, key, reason in replica.asked(
            "SELECT table_name, key, reason FROM backhaul_aside ORDER BY table_name, key"
        )
    }


def settled(*replicas: Replica) -> None:
    for _ in range(3):
        for one in replicas:
            one.sync()


def equal(a: Replica, b: Replica) -> bool:
    return all(a.rows(table) == b.rows(table) for table in ("invoice", "line", "note"))


@pytest.mark.parametrize("action", ACTIONS)
def test_what_an_app_deletes_with_all_that_refers_to_it_is_captured_and_arrives(make: MakeReplica, action: str) -> None:
    a, b = shop(make, action)
    a.write("DELETE FROM invoice WHERE id = 'i'")
    a.sync()
    b.pull()
    assert equal(a, b)
    assert b.rows("invoice") == [("other", 2)]
    assert set_aside(b) == {}
    assert b.outbox() == []  # what the database took along here is no change of this app's


@pytest.mark.parametrize("action", ACTIONS)
def test_an_unsent_row_is_not_taken_along_by_a_delete_that_arrives(make: MakeReplica, kind: str, action: str) -> None:
    a, b = shop(make, action)
    b.write("INSERT INTO line VALUES ('mine', 'i', 'of b')")
    a.write("DELETE FROM invoice WHERE id = 'i'")
    a.push()
    b.pull()
    assert ("mine", "i", "of b") in b.rows("line")
    if kind == "postgresql":
        assert list(set_aside(b)) == ['invoice ["i"]']
        assert "line" in set_aside(b)['invoice ["i"]']
        assert "mine" in set_aside(b)['invoice ["i"]']
    b.push()
    b.pull()
    assert ("mine", "i", "of b") in b.rows("line")
    assert b.outbox() == []


@pytest.mark.parametrize("action", ACTIONS)
def test_an_unsent_edit_is_not_taken_along_by_a_delete_that_arrives(make: MakeReplica, action: str) -> None:
    a, b = shop(make, action)
    b.write("UPDATE line SET what = 'of b' WHERE id = 'x'")
    a.write("DELETE FROM invoice WHERE id = 'i'")
    a.push()
    b.pull()
    (row,) = (row for row in b.rows("line") if row[0] == "x")
    assert row[2] == "of b"
    settled(b, a, b)
    assert equal(a, b)
    assert set_aside(b) == {}


def test_a_row_that_is_deleted_in_the_end_lets_the_delete_in(make: MakeReplica) -> None:
    a, b = shop(make, "CASCADE")
    b.write("INSERT INTO line VALUES ('mine', 'i', 'of b')")
    a.write("DELETE FROM invoice WHERE id = 'i'")
    a.push()
    b.sync()
    b.write("DELETE FROM line WHERE id = 'mine'")
    settled(b, a, b)
    assert equal(a, b)
    assert set_aside(b) == {}
    assert set_aside(a) == {}


def test_a_row_that_was_moved_away_before_the_delete_is_not_taken_along(make: MakeReplica) -> None:
    a, b = shop(make, "CASCADE")
    a.write_together("UPDATE line SET invoice = 'other'", "DELETE FROM invoice WHERE id = 'i'")
    a.push()
    b.sync()
    assert b.rows("line") == [("x", "other", "of a"), ("y", "other", "of a")]
    assert b.rows("note") == [("n", "x", "of a")]
    assert equal(a, b)
    assert set_aside(b) == {}


def test_an_edit_that_lost_to_a_delete_does_not_stop_the_pull(make: MakeReplica, kind: str) -> None:
    """The invoice that b has edited is gone, and b has lines of it: it stays, set aside, and everything else comes."""
    a, b = shop(make, "NO ACTION")
    a.write_together("UPDATE line SET invoice = 'other'", "DELETE FROM invoice WHERE id = 'i'")
    a.push()
    b.write("UPDATE invoice SET total = 7 WHERE id = 'i'")
    b.write("INSERT INTO line VALUES ('mine', 'i', 'of b')")
    b.pull()
    b.push()
    a.write("INSERT INTO invoice VALUES ('new', 3)")
    a.push()
    b.pull()
    assert ("new", 3) in b.rows("invoice")
    assert ("mine", "i", "of b") in b.rows("line")
    if kind == "postgresql":
        assert list(set_aside(b)) == ['invoice ["i"]']


def test_what_is_given_up_and_still_referred_to_stays_and_is_said(make: MakeReplica, kind: str) -> None:
    a, b = shop(make, "CASCADE")
    b.write("INSERT INTO invoice VALUES ('mine', 1)")
    b.write("INSERT INTO line VALUES ('l', 'mine', 'of b')")
    b.write(
        "UPDATE backhaul_outbox SET state = 'parked', attempts = 1, op_id = 'op' || id, settled_at = 1,"
        " reason = 'no' WHERE id > 0"
    )
    taken = next(row for row in b.parked() if row["table_name"] == "invoice")
    parked.discard(b.database, b.remote, [taken["op_id"]])
    assert ("l", "mine", "of b") in b.rows("line")
    assert len(b.parked()) == 1
    if kind == "postgresql":
        assert list(set_aside(b)) == ['invoice ["mine"]']
    parked.discard(b.database, b.remote, [])
    settled(b, a)
    assert equal(a, b)
    assert set_aside(b) == {}


# ------------------------------------------------------------------------------------------------ circles

TEAMS = """
    CREATE TABLE team (id TEXT PRIMARY KEY, head TEXT {required});
    CREATE TABLE person (id TEXT PRIMARY KEY, team TEXT NOT NULL REFERENCES team (id) {when}, boss TEXT);
"""
CIRCLES = {
    "that may be empty": ("", ""),
    "that is checked in the end": ("NOT NULL", "DEFERRABLE INITIALLY DEFERRED"),
    "that can be checked in the end": ("NOT NULL", "DEFERRABLE"),
}


def circle(make_on: MakeReplica, required: str, when: str) -> tuple[Replica, Replica]:
    """A replica without rules, and one where team and person refer to each other, and a person to another one."""
    rules = f"""
        ALTER TABLE team ADD FOREIGN KEY (head) REFERENCES person (id) {when};
        ALTER TABLE person ADD FOREIGN KEY (boss) REFERENCES person (id);
    """
    a = make_on("sqlite", schema=TEAMS.format(required="", when=""))
    b = make_on("postgresql", schema=TEAMS.format(required=required, when=when) + rules)
    return a, b


@pytest.mark.parametrize("name", CIRCLES)
def test_records_that_refer_to_each_other_in_a_circle_arrive(make_on: MakeReplica, name: str) -> None:
    a, b = circle(make_on, *CIRCLES[name])
    a.write("INSERT INTO team VALUES ('t', 'p'), ('u', 'q')")
    a.write("INSERT INTO person VALUES ('p', 't', 'q'), ('q', 'u', 'p')")
    a.push()
    b.pull()
    assert set_aside(b) == {}
    assert b.rows("team") == a.rows("team")
    assert b.rows("person") == a.rows("person")
    assert b.outbox() == []


def test_a_longer_circle_arrives(make_on: MakeReplica) -> None:
    schema = "CREATE TABLE one (id TEXT PRIMARY KEY, two TEXT {}); "
    schema += "CREATE TABLE two (id TEXT PRIMARY KEY, three TEXT {}); "
    schema += "CREATE TABLE three (id TEXT PRIMARY KEY, one TEXT {});"
    a = make_on("sqlite", schema=schema.format("", "", ""))
    b = make_on(
        "postgresql",
        schema=schema.format("", "NOT NULL", "NOT NULL")
        + "ALTER TABLE one ADD FOREIGN KEY (two) REFERENCES two (id);"
        + "ALTER TABLE two ADD FOREIGN KEY (three) REFERENCES three (id);"
        + "ALTER TABLE three ADD FOREIGN KEY (one) REFERENCES one (id);",
    )
    for number in range(3):
        a.write("INSERT INTO three VALUES (?, ?)", f"c{number}", f"a{number}")
        a.write("INSERT INTO two VALUES (?, ?)", f"b{number}", f"c{number}")
        a.write("INSERT INTO one VALUES (?, ?)", f"a{number}", f"b{(number + 1) % 3}")
    a.push()
    b.pull()
    assert set_aside(b) == {}
    for table in ("one", "two", "three"):
        assert b.rows(table) == a.rows(table)


def test_what_lacks_what_it_refers_to_waits_alone_and_comes_in_with_it(make_on: MakeReplica) -> None:
    a, b = circle(make_on, *CIRCLES["that is checked in the end"])
    a.write("INSERT INTO person VALUES ('p', 't', NULL)")
    a.push()
    a.write("INSERT INTO team VALUES ('lonely', 'nobody')")
    a.push()
    b.pull()
    assert set(set_aside(b)) == {'person ["p"]', 'team ["lonely"]'}
    a.write("INSERT INTO team VALUES ('t', 'p')")
    a.push()
    b.pull()
    b.pull()  # both halves of the circle are known to be wanting by now, and are fetched together
    assert set(set_aside(b)) == {'team ["lonely"]'}
    assert b.rows("person") == [("p", "t", None)]


def test_a_circle_that_nothing_can_enter_says_what_to_do(make_on: MakeReplica) -> None:
    a, b = circle(make_on, "NOT NULL", "")
    a.write("INSERT INTO team VALUES ('t', 'p')")
    a.write("INSERT INTO person VALUES ('p', 't', NULL)")
    a.push()
    b.pull()
    assert set(set_aside(b)) == {'person ["p"]', 'team ["t"]'}
    for reason in set_aside(b).values():
        assert "make a foreign key of it DEFERRABLE" in reason
