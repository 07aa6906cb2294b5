"""The judge itself: it finds each anomaly in a history that is known to have it, and nothing in one that has none."""

from __future__ import annotations

import sqlite3
import threading
from itertools import count
from pathlib import Path
from random import Random

import pytest

from tests.checker.history import Transaction
from tests.checker.judging import summary, violations
from tests.checker.session import KEYS, Session, make_registers

WROTE_X = Transaction(session="a", began=1, ended=2, reads={"x": 0}, writes={"x": 1})
WROTE_BOTH = Transaction(session="a", began=1, ended=2, reads={"x": 0, "y": 0}, writes={"x": 1, "y": 1})
WROTE_Y_NEXT = Transaction(session="a", began=3, ended=4, writes={"y": 2})
ANSWERED = Transaction(session="b", began=5, ended=6, reads={"x": 1}, writes={"y": 3})


def reads(session: str, began: int, **values: int) -> Transaction:
    return Transaction(session=session, began=began, ended=began + 1, reads=values)


ANOMALIES = {
    "read your writes": [WROTE_X, reads("a", 3, x=0)],
    "monotonic reads": [WROTE_X, reads("b", 3, x=1), reads("b", 5, x=0)],
    "atomic visibility": [WROTE_BOTH, reads("b", 3, x=1, y=0)],
    "monotonic writes": [WROTE_X, WROTE_Y_NEXT, reads("b", 5, x=0, y=2)],
    "writes follow reads": [WROTE_X, ANSWERED, reads("c", 7, x=0, y=3)],
    "nobody wrote it": [WROTE_X, reads("b", 3, x=7)],
    "cycle": [
        Transaction(session="a", began=1, ended=4, reads={"y": 2}, writes={"x": 1}),
        Transaction(session="b", began=2, ended=3, reads={"x": 1}, writes={"y": 2}),
    ],
}
END = {"x": 1}


@pytest.mark.parametrize("rule", ANOMALIES)
def test_each_anomaly_is_found_and_called_by_its_name(rule: str) -> None:
    assert {one.rule for one in violations(ANOMALIES[rule], {}, {})} == {rule}


def test_a_value_seen_at_a_remove_is_missed_in_a_later_snapshot_of_the_same_session() -> None:
    history = [WROTE_X, ANSWERED, reads("c", 7, y=3), reads("c", 9, x=0)]
    assert [one.rule for one in violations(history, {}, {})] == ["writes follow reads"]


def test_a_greater_value_stands_for_the_one_that_it_has_overwritten() -> None:
    history = [WROTE_BOTH, Transaction(session="b", began=2, ended=3, writes={"y": 5}), reads("c", 4, x=1, y=5)]
    assert violations(history, {}, {}) == []


@pytest.mark.parametrize(
    ("finals", "waiting", "rules"),
    [
        ({"one": END, "two": END}, {"one": 0, "two": 0}, set()),
        ({"one": END, "two": {"x": 0}}, {}, {"final", "strong convergence"}),
        ({"one": {"x": 0}, "two": {"x": 0}}, {}, {"final"}),
        ({"one": END | {"y": 4}}, {}, {"final"}),
        ({"one": {}}, {}, {"final"}),
        ({"one": END}, {"one": 3}, {"drained"}),
    ],
)
def test_the_end_is_judged(finals: dict[str, dict[str, int]], waiting: dict[str, int], rules: set[str]) -> None:
    assert {one.rule for one in violations([WROTE_X], finals, waiting)} == rules


def test_the_summary_says_how_often_and_shows_a_few() -> None:
    found = violations([WROTE_X, *(reads("b", began, x=7) for began in range(3, 13, 2))], {}, {})
    assert summary(found).splitlines() == [
        "nobody wrote it: 5 times",
        "    b@3 reads x=7",
        "    b@5 reads x=7",
        "    b@7 reads x=7",
    ]


# ------------------------------------------------------------------------------------------------ plain SQLite


def run_sessions(database: Path, sessions: list[Session], transactions: int) -> list[Transaction]:
    """All of them at once on one database, each in a thread."""
    history: list[Transaction] = []

    def work(session: Session) -> None:
        try:
            history.extend(session.transact() for _ in range(transactions))
        finally:
            session.close()

    threads = [threading.Thread(target=work, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return history


def test_plain_sqlite_is_found_to_be_flawless(tmp_path: Path) -> None:
    database = tmp_path / "plain.sqlite"
    make_registers(f"sqlite:///{database}", rows=True)
    sessions = [Session(f"sqlite:///{database}", f"app {number}", number, Random(number)) for number in range(4)]
    history = run_sessions(database, sessions, 150)
    with sqlite3.connect(database) as connection:
        final = dict(connection.execute("SELECT k, v FROM register").fetchall())
    connection.close()
    assert len(history) == 600
    assert sum(len(one.writes) for one in history) > 300
    assert violations(history, {"plain": final}, {"plain": 0}) == []


def test_a_careless_replication_of_sqlite_is_found_out(tmp_path: Path) -> None:
    """Row by row, without transactions, and with a row left out now and then."""
    here, there = tmp_path / "here.sqlite", tmp_path / "there.sqlite"
    for database in (here, there):
        make_registers(f"sqlite:///{database}", rows=True)
    random, rounds = Random(1), count()
    writer = Session(f"sqlite:///{here}", "writer", 1, random)
    reader = Session(f"sqlite:///{there}", "reader", 2, random)
    with sqlite3.connect(here) as source, sqlite3.connect(there, isolation_level=None) as target:
        history = []
        while next(rounds) < 200:
            history.append(writer.transact())
            for key in random.sample(KEYS, len(KEYS)):
                history.append(reader.look())
                if random.random() < 0.7:
                    row = source.execute("SELECT v, k FROM register WHERE k = ?", (key,)).fetchone()
                    target.execute("UPDATE register SET v = ? WHERE k = ?", row)
        finals = {
            name: dict(connection.execute("SELECT k, v FROM register").fetchall())
            for name, connection in {"here": source, "there": target}.items()
        }
    source.close()
    target.close()
    writer.close()
    reader.close()
    rules = {one.rule for one in violations(history, finals, {})}
    assert rules >= {"atomic visibility", "monotonic writes", "final", "strong convergence"}
