"""Two replicas that write the same things at the same time, and short words for what a person does about it."""

from __future__ import annotations

from typing import Any

from backhaul.replica import conflicts, resolution
from backhaul.replica.contested import Entry
from backhaul.replica.reconcile import compare
from backhaul.replica.strategies import Rules
from tests.replicas import Replica

SCHEMA = """
    CREATE TABLE note (id TEXT PRIMARY KEY, body TEXT, colour TEXT);
    CREATE TABLE invoice (id TEXT PRIMARY KEY, total INTEGER, remark TEXT);
    CREATE TABLE line (
        id TEXT PRIMARY KEY, invoice_id TEXT NOT NULL REFERENCES invoice (id), amount INTEGER NOT NULL);
"""
RULES = {
    "note": Rules(merge={"body": "manual"}),
    "invoice": Rules(merge={"*": "manual"}),
    "line": Rules(aggregate="invoice"),
}


def populate(a: Replica, b: Replica) -> tuple[Replica, Replica]:
    """One note, and an invoice of two lines, on both."""
    a.write("INSERT INTO note VALUES ('n', 'first', 'red')")
    a.write_together(
        "INSERT INTO invoice VALUES ('i', 7, NULL)",
        "INSERT INTO line VALUES ('l1', 'i', 3)",
        "INSERT INTO line VALUES ('l2', 'i', 4)",
    )
    a.sync()
    b.sync()
    return a, b


def contested(a: Replica, b: Replica, mine: str = "of b", theirs: str = "of a") -> int:
    """Both write the note's body; the conflict is b's. Returns its number."""
    b.write(f"UPDATE note SET body = '{mine}'")
    a.write(f"UPDATE note SET body = '{theirs}'")
    a.sync()
    b.sync()
    return only(b)


def open_numbers(replica: Replica) -> list[int]:
    with replica.database.reading() as connection:
        return conflicts.numbers(connection)


def only(replica: Replica) -> int:
    (number,) = open_numbers(replica)
    return number


def entries(replica: Replica, number: int) -> list[Entry]:
    with replica.database.reading() as connection:
        return conflicts.of_number(connection, number)


def resolve(replica: Replica, choice: Any, number: int | None = None) -> int:
    number = number or only(replica)
    resolution.resolve(replica.database, number, choice, now=replica.clock.now())
    return number


def undo(replica: Replica, number: int) -> None:
    resolution.undo(replica.database, number)


def all_equal(*replicas: Replica) -> bool:
    for replica in (*replicas, *replicas):
        replica.sync()
    return all(
        replica.outbox() == [] and compare(replica.database, replica.remote, context=replica.context).equal
        for replica in replicas
    )


def invoice_of(replica: Replica) -> tuple[int, int]:
    """The total, and what it should be."""
    (total,) = [row[1] for row in replica.rows("invoice")]
    return total, sum(row[2] for row in replica.rows("line"))


def edit_line(replica: Replica, line: str, amount: int) -> None:
    """As an app does: the line and the total, in one transaction."""
    replica.write_together(
        f"UPDATE line SET amount = {amount} WHERE id = '{line}'",
        "UPDATE invoice SET total = (SELECT sum(amount) FROM line WHERE invoice_id = 'i')",
    )


def add_line(replica: Replica, line: str, amount: int) -> None:
    replica.write_together(
        f"INSERT INTO line VALUES ('{line}', 'i', {amount})",
        "UPDATE invoice SET total = (SELECT sum(amount) FROM line WHERE invoice_id = 'i')",
    )


def drop_line(replica: Replica, line: str) -> None:
    replica.write_together(
        f"DELETE FROM line WHERE id = '{line}'",
        "UPDATE invoice SET total = (SELECT sum(amount) FROM line WHERE invoice_id = 'i')",
    )
