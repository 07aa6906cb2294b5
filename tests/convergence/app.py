"""An app at work on its own database: transactions of every shape, of which it knows nothing but SQL.

Each value it writes is unlike every other, so that a value that is found can be told from every other one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from itertools import count
from random import Random

from backhaul.clock import Clock
from backhaul.replica.strategies import Rules
from tests.replicas import SHOP

SCHEMA = (
    SHOP
    + """
    CREATE TABLE tag (name TEXT PRIMARY KEY, colour TEXT, weight REAL, picture BLOB);
    CREATE TABLE shelf (name TEXT PRIMARY KEY, stock INTEGER, labels TEXT, note TEXT, best INTEGER);
"""
)
RULES = {"shelf": Rules(merge={"stock": "counter", "labels": "set", "note": "text", "best": "max"})}
FIELDS = {
    "customer": ["name", "phone", "credit", "photo"],
    "invoice": ["customer_id", "total"],
    "line": ["what"],
    "tag": ["colour", "weight", "picture"],
}
TABLES = [*FIELDS, "shelf"]
SHARED_KEYS = 6  # of generated keys and of names that any replica may take


class App:
    """number: of the replica, for keys of its own. poison: how likely a text is one that no server takes."""

    def __init__(
        self, connection: sqlite3.Connection, random: Random, clock: Clock, number: int, *, poison: float
    ) -> None:
        self._connection = connection
        self._random = random
        self._number = number
        self._keys = count(1)
        self._poison = poison
        self._values = count(1)
        # The triggers tell the time with SQLite's own clock, which is to be this replica's.
        connection.create_function("julianday", 1, lambda _now: clock.now() / 86_400_000 + 2_440_587.5)

    def work(self) -> None:
        """One transaction."""
        with self._connection:
            group = f"g{self._number}-{next(self._values)}" if self._random.random() < 0.5 else None
            if group:
                self._connection.execute("UPDATE backhaul_replica SET group_id = ?", (group,))
            for _ in range(self._random.choice([1, 1, 1, 2, 3, 6])):
                self._random.choice(self._deeds)()
            self._connection.execute("UPDATE backhaul_replica SET group_id = NULL")
            if self._random.random() < 0.05:
                self._connection.rollback()

    @property
    def _deeds(self) -> list[Callable[[], None]]:
        return [
            self._new_customer,
            self._new_invoice,
            self._new_tag,
            self._replace_tag,
            self._rename_tag,
            self._update,
            self._update,
            self._update,
            self._update_many,
            self._delete,
            self._delete_and_insert,
            self._new_shelf,
            self._change_shelf,
            self._change_shelf,
        ]

    def _new_customer(self) -> None:
        key = self._generated_key("customer")
        if key is not None:
            self._execute("INSERT INTO customer (id, name, phone) VALUES (?, ?, ?)", key, self._text(), self._text())

    def _new_invoice(self) -> None:
        key = self._generated_key("invoice")
        customer = self._some_row("customer")
        if key is None or customer is None:
            return
        self._execute("INSERT INTO invoice VALUES (?, ?, ?)", key, customer[0], self._random.randrange(10**6) / 100)
        for position in range(self._random.randrange(3)):
            self._execute("INSERT OR IGNORE INTO line VALUES (?, ?, ?)", key, position, self._text())

    def _new_tag(self) -> None:
        self._execute("INSERT OR IGNORE INTO tag (name, colour) VALUES (?, ?)", self._shared_name(), self._text())

    def _replace_tag(self) -> None:
        self._execute("INSERT OR REPLACE INTO tag (name, colour) VALUES (?, ?)", self._shared_name(), self._text())

    def _rename_tag(self) -> None:
        row = self._some_row("tag")
        if row is not None:
            self._execute("UPDATE OR IGNORE tag SET name = ? WHERE name = ?", self._shared_name(), row[0])

    def _update(self) -> None:
        table = self._random.choice(list(FIELDS))
        row = self._some_row(table)
        if row is not None:
            for name in self._random.sample(FIELDS[table], self._random.randint(1, min(2, len(FIELDS[table])))):
                where, key = self._where(table, row)
                self._execute(f"UPDATE {table} SET {name} = ? WHERE {where}", self._value(table, name), *key)

    def _update_many(self) -> None:
        self._execute("UPDATE customer SET phone = ? WHERE id % 3 = ?", self._text(), self._random.randrange(3))

    def _delete(self) -> None:
        table = self._random.choice(list(FIELDS))
        row = self._some_row(table)
        if row is not None:
            where, key = self._where(table, row)
            self._execute(f"DELETE FROM {table} WHERE {where}", *key)

    def _delete_and_insert(self) -> None:
        table = self._random.choice(list(FIELDS))
        row = self._some_row(table)
        if row is not None:
            where, key = self._where(table, row)
            self._execute(f"DELETE FROM {table} WHERE {where}", *key)
            self._execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", *row)

    def _new_shelf(self) -> None:
        name = f"shelf {self._random.randrange(2)}"
        self._execute("INSERT OR IGNORE INTO shelf VALUES (?, 0, '[]', '', 0)", name)

    def _change_shelf(self) -> None:
        """Count, label, write and reach, on what all share; letters and labels are unlike all others."""
        row = self._some_row("shelf")
        if row is None:
            return
        name, _, labels, note, _ = row
        self._execute("UPDATE shelf SET stock = stock + ? WHERE name = ?", self._random.randint(-3, 5), name)
        if self._random.random() < 0.5:
            here = set(json.loads(str(labels)))
            gone = set(self._random.sample(sorted(here), 1)) if here and self._random.random() < 0.3 else set()
            said = json.dumps(sorted(here - gone | {self._value("shelf", "label")}), separators=(",", ":"))
            self._execute("UPDATE shelf SET labels = ? WHERE name = ?", said, name)
        if self._random.random() < 0.5:
            at = self._random.randint(0, len(str(note)))
            letter = chr(0x4E00 + self._number * 2_000 + next(self._values))
            self._execute("UPDATE shelf SET note = ? WHERE name = ?", f"{note}"[:at] + letter + f"{note}"[at:], name)
        if self._random.random() < 0.5:
            self._execute("UPDATE shelf SET best = ? WHERE name = ?", self._random.randrange(1_000), name)

    def _execute(self, statement: str, *parameters: object) -> None:
        self._connection.execute(statement, parameters)

    def _some_row(self, table: str) -> tuple[object, ...] | None:
        rows = self._connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
        return self._random.choice(rows) if rows else None

    def _where(self, table: str, row: tuple[object, ...]) -> tuple[str, tuple[object, ...]]:
        if table == "line":
            return "invoice_id = ? AND position = ?", row[:2]
        return ("name = ?" if table == "tag" else "id = ?"), row[:1]

    def _generated_key(self, table: str) -> int | None:
        """Mostly one of this replica's own; sometimes one that others may take as well. None: it is taken here."""
        if self._random.random() < 0.7:
            return self._number * 1_000 + next(self._keys)
        key = self._random.randint(1, SHARED_KEYS)
        taken = self._connection.execute(f"SELECT 1 FROM {table} WHERE id = ?", (key,)).fetchone()
        return None if taken else key

    def _shared_name(self) -> str:
        return f"tag {self._random.randrange(SHARED_KEYS)}"

    def _value(self, table: str, name: str) -> object:
        if name == "customer_id":
            row = self._some_row("customer")
            return row[0] if row else 0
        if name in ("credit", "total", "weight"):
            return self._number * 10**6 + next(self._values) + self._random.choice([0, 0.1, 0.25])
        if name in ("photo", "picture"):
            return self._random.choice([None, self._text().encode()])
        return self._text()

    def _text(self) -> str:
        return f"{'poison ' if self._random.random() < self._poison else ''}{self._number}:{next(self._values)}"
