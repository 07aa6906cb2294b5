"""The judge itself: it finds each anomaly in a history that is known to have it, and nothing in one that has none."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random

import pytest

from tests.checker.history import Transaction, Undone
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

# Where all write every key, and the greatest value stands: b has written less, and its own stands over the greater.
WROTE_LESS = Transaction(session="b", began=0, ended=1, writes={"x": 1, "y": 1})
WROTE_MORE = Transaction(session="a", began=2, ended=3, writes={"x": 3, "y": 3})
WROTE_Y_MORE = Transaction(session="a", began=4, ended=5, writes={"y": 5})
HAS_SEEN_MORE = Transaction(session="c", began=6, ended=7, reads={"x": 3}, writes={"z": 7})
SHARED = {
    "atomic visibility": [WROTE_LESS, WROTE_MORE, reads("b", 8, x=3, y=1)],
    "monotonic writes": [WROTE_LESS, WROTE_MORE, WROTE_Y_MORE, reads("b", 8, x=1, y=5)],
    "writes follow reads": [WROTE_LESS, WROTE_MORE, HAS_SEEN_MORE, reads("b", 8, x=1, z=7)],
}


@pytest.mark.parametrize("rule", ANOMALIES)
def test_each_anomaly_is_found_and_called_by_its_name(rule: str) -> None:
    assert {one.rule for one in violations(ANOMALIES[rule], {}, {})} == {rule}


@pytest.mark.parametrize("rule", SHARED)
def test_a_lesser_value_of_ones_own_is_no_excuse_for_what_is_missing(rule: str) -> None:
    assert {one.rule for one in violations(SHARED[rule], {}, {})} == {rule}


def test_a_greater_value_of_ones_own_hides_what_was_written_with_the_lesser_one() -> None:
    wrote = Transaction(session="b", began=4, ended=5, reads={"x": 0}, writes={"x": 4})
    history = [WROTE_MORE, wrote, reads("b", 6, x=4, y=0), reads("b", 8, x=4, y=3)]
    assert violations(history, {}, {}) == []


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


@pytest.mark.parametrize(
    ("final", "rules"),
    [
        ({"x": 3, "y": 3}, set()),
        ({"x": 1, "y": 1}, set()),
        ({"x": 3, "y": 1}, {"atomic visibility"}),
        ({"x": 0, "y": 0}, {"final"}),
        ({"x": 2, "y": 1}, {"nobody wrote it"}),
    ],
)
def test_what_a_backup_took_back_is_there_or_not_but_not_in_part(final: dict[str, int], rules: set[str]) -> None:
    undone = Undone(sessions=["a"], since=1, until=4)
    assert {one.rule for one in violations([WROTE_LESS, WROTE_MORE], {"one": final}, {}, [undone])} == rules


def test_what_others_have_seen_of_it_must_stay() -> None:
    undone, history = Undone(sessions=["a"], since=1, until=4), [WROTE_LESS, WROTE_MORE, reads("c", 6, x=3)]
    assert {one.rule for one in violations(history, {"one": {"x": 1, "y": 1}}, {}, [undone])} == {"final"}


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
    with closing(sqlite3.connect(database)) as connection:
        final = registers(connection)
    assert len(history) == 600
    assert sum(len(one.writes) for one in history) > 300
    assert violations(history, {"plain": final}, {"plain": 0}) == []


def test_a_careless_replication_of_sqlite_is_found_out(tmp_path: Path) -> None:
    """Row by row, without transactions, and with a row left out now and then."""
    here, there = databases(tmp_path)
    random = Random(1)
    writer = Session(f"sqlite:///{here}", "writer", 1, random)
    reader = Session(f"sqlite:///{there}", "reader", 2, random)
    history = []
    with closing(sqlite3.connect(here)) as source, closing(sqlite3.connect(there, isolation_level=None)) as target:
        for _ in range(200):
            history.append(writer.transact())
            for key in random.sample(KEYS, len(KEYS)):
                history.append(reader.look())
                if random.random() < 0.7:
                    carry(source, target, key, "v = ?")
        finals = {"here": registers(source), "there": registers(target)}
    writer.close()
    reader.close()
    rules = {one.rule for one in violations(history, finals, {})}
    assert rules >= {"atomic visibility", "monotonic writes", "final", "strong convergence"}


def test_a_careless_replication_where_both_write_every_key_is_found_out(tmp_path: Path) -> None:
    """The greater value stands, and the rows of one transaction come one after the other, some of them late."""
    paths, random = databases(tmp_path), Random(2)
    apps = [Session(f"sqlite:///{path}", path.stem, number, random) for number, path in enumerate(paths)]
    history = []
    with ExitStack() as stack:
        here, there = (stack.enter_context(closing(sqlite3.connect(path, isolation_level=None))) for path in paths)
        for _ in range(200):
            history += [app.transact() for app in apps]
            for key in random.sample(KEYS, len(KEYS)):
                history += [app.look() for app in apps]
                if random.random() < 0.7:
                    carry(here, there, key, "v = max(v, ?)")
                    carry(there, here, key, "v = max(v, ?)")
    for app in apps:
        app.close()
    rules = {one.rule for one in violations(history, {}, {})}
    assert rules == {"atomic visibility", "monotonic writes", "writes follow reads"}


def databases(folder: Path) -> list[Path]:
    paths = [folder / "here.sqlite", folder / "there.sqlite"]
    for path in paths:
        make_registers(f"sqlite:///{path}", rows=True)
    return paths


def carry(source: sqlite3.Connection, target: sqlite3.Connection, key: str, becomes: str) -> None:
    row = source.execute("SELECT v, k FROM register WHERE k = ?", (key,)).fetchone()
    target.execute(f"UPDATE register SET {becomes} WHERE k = ?", row)


def registers(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT k, v FROM register").fetchall())
