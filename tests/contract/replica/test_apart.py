"""What is withheld of a page because our own changes touch its aggregates, and what looking for that costs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from backhaul.merge.aggregate import Aggregates
from backhaul.replica.strategies import Rules
from backhaul.wire import Column, Reference, Table
from tests.contract.replica.conftest import MakeReplica
from tests.replicas import Replica

pytestmark = pytest.mark.alternating("sqlite", "postgresql")

SCHEMA = """
    CREATE TABLE invoice (id TEXT PRIMARY KEY, note TEXT);
    CREATE TABLE line (invoice TEXT NOT NULL REFERENCES invoice (id), position INTEGER, what TEXT,
                       PRIMARY KEY (invoice, position));
    CREATE TABLE remark (id TEXT PRIMARY KEY, invoice TEXT REFERENCES invoice (id), what TEXT);
"""
RULES = {"line": Rules(aggregate="invoice"), "remark": Rules(aggregate="invoice")}


@pytest.fixture
def pair(make: MakeReplica) -> tuple[Replica, Replica]:
    return make(schema=SCHEMA, rules=RULES), make(schema=SCHEMA, rules=RULES)


def write_many(replica: Replica, first: int, number: int, *, words: int = 300) -> None:
    """Invoices of one line and one remark, and an edit of that one that does not say whose it is."""
    for invoice in range(first, first + number):
        replica.app.execute(f"INSERT INTO invoice VALUES ('i{invoice}', 'mine')")
        replica.app.execute(f"INSERT INTO line VALUES ('i{invoice}', 1, '{'word ' * words}')")
        replica.app.execute(f"INSERT INTO remark VALUES ('r{invoice}', 'i{invoice}', '{'word ' * words}')")
        replica.app.execute(f"UPDATE remark SET what = what || 'x' WHERE id = 'r{invoice}'")
    if hasattr(replica.app, "commit"):
        replica.app.commit()


@contextmanager
def statements(replica: Replica) -> Iterator[list[str]]:
    said: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    event.listen(replica.database.engine, "before_cursor_execute", note)
    yield said
    event.remove(replica.database.engine, "before_cursor_execute", note)


def pulled(a: Replica, b: Replica, number: int) -> tuple[int, int]:
    """One small page into a replica on which so much waits: the statements that say nothing of the rows here, and the
    memory at its highest."""
    write_many(b, b.asked("SELECT count(*) FROM invoice")[0][0], number)
    a.write(f"INSERT INTO invoice VALUES ('of a {number}', 'theirs')")
    a.push()
    with statements(b) as said:
        tracemalloc.start()
        b.pull()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (f"of a {number}", "theirs") in b.rows("invoice")
    return len([one for one in said if 'FROM "remark" AS here' not in one]), peak


def test_what_waits_here_is_not_held_in_memory_to_apply_a_page(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    few, least = pulled(a, b, 10)
    many, most = pulled(a, b, 2_000)
    assert many <= few + 10  # what does not say whose it is comes in a few chunks more
    assert most < least + 3_000_000  # of twelve megabytes that wait


@pytest.mark.parametrize("part", ["line", "remark", "edit of a remark", "moved remark", "root", "deleted remark"])
def test_whatever_of_an_aggregate_we_have_touched_withholds_all_of_it(pair: tuple[Replica, Replica], part: str) -> None:
    a, b = pair
    for invoice in ("i", "j"):
        a.write("INSERT INTO invoice VALUES (?, 'at first')", invoice)
        a.write("INSERT INTO remark VALUES (?, ?, 'at first')", f"of {invoice}", invoice)
    a.sync()
    b.sync()
    if part == "line":
        b.write("INSERT INTO line VALUES ('i', 1, 'mine')")
    elif part == "remark":
        b.write("INSERT INTO remark VALUES ('new', 'i', 'mine')")
    elif part == "edit of a remark":
        b.write("UPDATE remark SET what = 'mine' WHERE id = 'of i'")
    elif part == "moved remark":
        b.write("UPDATE remark SET invoice = 'i' WHERE id = 'of j'")
    elif part == "deleted remark":
        b.write("DELETE FROM remark WHERE id = 'of i'")
    else:
        b.write("UPDATE invoice SET note = 'mine' WHERE id = 'i'")
    a.write("UPDATE invoice SET note = 'theirs' WHERE id = 'i'")
    a.write("INSERT INTO line VALUES ('i', 7, 'theirs')")
    a.write("UPDATE invoice SET note = 'theirs' WHERE id = 'other'")
    a.write("INSERT INTO invoice VALUES ('k', 'theirs')")
    a.push()
    b.pull()
    assert (("i", 7, "theirs") in b.rows("line")) is False
    assert dict(b.rows("invoice"))["i"] in ("at first", "mine")
    assert dict(b.rows("invoice"))["k"] == "theirs"


def test_what_names_the_root_of_a_part_is_told_for_each_table() -> None:
    invoice = Table(name="invoice", columns=[Column(name="id", type="TEXT")], key=["id"])
    line = Table(
        name="line",
        columns=[Column(name=name, type="TEXT") for name in ("position", "invoice")],
        key=["position", "invoice"],
        references=[Reference(columns=["invoice"], table="invoice", target=["id"])],
        aggregate="invoice",
    )
    remark = Table(
        name="remark",
        columns=[Column(name=name, type="TEXT") for name in ("id", "invoice")],
        key=["id"],
        references=[Reference(columns=["invoice"], table="invoice", target=["id"])],
        aggregate="invoice",
    )
    known = Aggregates({"invoice": invoice, "line": line, "remark": remark})
    assert known.named_by("invoice") == ("invoice", [0])
    assert known.named_by("line") == ("invoice", [1])
    assert known.named_by("remark") == ("invoice", ["invoice"])
