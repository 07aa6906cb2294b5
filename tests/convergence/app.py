"""An app at work on its own database: transactions of every shape, of which it knows nothing but SQL.

Each value it writes is unlike every other, so that a value that is found can be told from every other one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from itertools import count
from random import Random

from backhaul.replica.strategies import Rules
from tests.replicas import SHOP

SCHEMA = (
    SHOP
    + """
    CREATE TABLE tag (name TEXT PRIMARY KEY, colour TEXT, weight REAL, picture BLOB);
    CREATE TABLE shelf (
        name TEXT PRIMARY KEY, stock INTEGER, labels TEXT, note TEXT, best INTEGER, least INTEGER, motto TEXT);
    CREATE TABLE doc (name TEXT PRIMARY KEY, body TEXT, shade TEXT);
    CREATE TABLE bill (name TEXT PRIMARY KEY, total INTEGER NOT NULL, remark TEXT);
    CREATE TABLE item (
        bill TEXT NOT NULL REFERENCES bill (name), position INTEGER NOT NULL, amount INTEGER NOT NULL,
        PRIMARY KEY (bill, position));
    CREATE TABLE memo (name TEXT PRIMARY KEY, said TEXT, tone TEXT);
    CREATE TABLE ticket (id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT);
    CREATE TABLE article (name TEXT PRIMARY KEY, price INTEGER, serial TEXT);
"""
)
OF_SHELF = {
    "stock": "counter",
    "labels": "set",
    "note": "text",
    "best": "max",
    "least": "min",
    "motto": "custom:tests.convergence.app:longer",
}
RULES = {
    "shelf": Rules(merge=OF_SHELF),
    "doc": Rules(merge={"body": "manual"}),
    "item": Rules(aggregate="bill"),
    "memo": Rules(deletes="edit_wins"),
    "article": Rules(merge={"price": "server_wins", "serial": "immutable"}),
}
FIELDS = {
    "customer": ["name", "phone", "credit", "photo"],
    "invoice": ["customer_id", "total"],
    "line": ["what"],
    "tag": ["colour", "weight", "picture"],
}
MORE_FIELDS = {"doc": ["body", "shade"], "memo": ["said", "tone"], "ticket": ["what"]}
KEYS = {"line": ("invoice_id", "position"), "item": ("bill", "position")} | dict.fromkeys(
    ("customer", "invoice", "ticket"), ("id",)
)
TABLES = [*FIELDS, "shelf", "doc", "bill", "item", "memo", "ticket", "article"]
MERGED = "shelf"  # the table of which changes say what was done, not what is there now
DELTAS = ("doc",)  # the one of which they say both
RENAMED = {"tag": {"colour": "hue"}}  # what a replica may do to its columns, and the newest names
ARTICLES = 8
SHARED_KEYS = 6  # of generated keys and of names that any replica may take


def longer(_base: str | None, mine: str | None, theirs: str | None) -> str | None:
    """The merge of mottoes."""
    return max(mine, theirs, key=lambda one: (len(one or ""), one or ""))


class App:
    """number: of the replica, for keys of its own. poison: how likely a text is one that no server takes. features: of
    the world (see world.py)."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        random: Random,
        number: int,
        *,
        poison: float,
        features: frozenset[str] = frozenset(),
    ) -> None:
        self.connection = connection
        self._random = random
        self._features = features
        self._number = number
        self._keys = count(1)
        self._poison = poison
        self._values = count(1)

    def work(self) -> None:
        """One transaction."""
        if "aggregates" in self._features and self._random.random() < 0.3:
            self._bill()
        else:
            self._work()

    def _work(self) -> None:
        with self.connection:
            group = f"g{self._number}-{next(self._values)}" if self._random.random() < 0.5 else None
            if group:
                self.connection.execute("UPDATE backhaul_replica SET group_id = ?", (group,))
            for _ in range(self._random.choice([1, 1, 1, 2, 3, 6])):
                self._random.choice(self._deeds)()
            self.connection.execute("UPDATE backhaul_replica SET group_id = NULL")
            if self._random.random() < 0.05:
                self.connection.rollback()

    @property
    def _deeds(self) -> list[Callable[[], None]]:
        more = {
            "conflicts": [self._new_doc, self._change_doc, self._change_doc, self._delete_doc],
            "edit_wins": [self._new_memo, self._change_memo, self._change_memo, self._delete_memo],
            "blocks": [self._new_ticket, self._new_ticket, self._change_ticket],
            "articles": [self._new_article, self._new_article, self._price, self._serial, self._serial, self._serial],
        }
        return [deed for feature in sorted(more.keys() & self._features) for deed in more[feature]] + [
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
        self._execute(
            f"INSERT OR IGNORE INTO tag (name, {self._colour}) VALUES (?, ?)", self._shared_name(), self._text()
        )

    def _replace_tag(self) -> None:
        self._execute(
            f"INSERT OR REPLACE INTO tag (name, {self._colour}) VALUES (?, ?)", self._shared_name(), self._text()
        )

    def _rename_tag(self) -> None:
        row = self._some_row("tag")
        if row is not None:
            self._execute("UPDATE OR IGNORE tag SET name = ? WHERE name = ?", self._shared_name(), row[0])

    def _update(self) -> None:
        table = self._random.choice(list(FIELDS))
        row = self._some_row(table)
        if row is not None:
            fields = FIELDS[table] if table != "tag" else self._columns("tag")[1:]
            for name in self._random.sample(fields, self._random.randint(1, min(2, len(fields)))):
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
        self._execute("INSERT OR IGNORE INTO shelf VALUES (?, 0, '[]', '', 0, 0, '')", name)

    def _change_shelf(self) -> None:
        """Count, label, write and reach, on what all share; letters and labels are unlike all others."""
        row = self._some_row("shelf")
        if row is None:
            return
        name, _, labels, note, _, _, motto = row
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
            best, least = self._random.randrange(1_000), -self._random.randrange(1_000)
            self._execute("UPDATE shelf SET best = ?, least = ? WHERE name = ?", best, least, name)
        if self._random.random() < 0.3:
            self._execute("UPDATE shelf SET motto = ? WHERE name = ?", f"{motto}{chr(96 + self._number)}", name)

    # ------------------------------------------------------------------------------------------------ the features'

    def _bill(self) -> None:
        """One transaction on a bill, after which its total is the sum of its items."""
        with self.connection:
            self._execute("UPDATE backhaul_replica SET group_id = ?", f"b{self._number}-{next(self._values)}")
            name = f"bill {self._random.randrange(3)}"
            self._execute("INSERT OR IGNORE INTO bill VALUES (?, 0, NULL)", name)
            kind = self._random.choice(["put", "put", "put", "drop", "remark", "scrap"])
            if kind == "put":
                amount = (
                    "INSERT INTO item VALUES (?, ?, ?) "
                    "ON CONFLICT (bill, position) DO UPDATE SET amount = excluded.amount"
                )
                self._execute(amount, name, self._random.randrange(3), self._number * 1_000 + next(self._values))
            elif kind == "drop":
                self._execute("DELETE FROM item WHERE bill = ? AND position = ?", name, self._random.randrange(3))
            elif kind == "remark":
                self._execute("UPDATE bill SET remark = ? WHERE name = ?", f"{self._number}:{next(self._values)}", name)
            else:
                self._execute("DELETE FROM item WHERE bill = ?", name)
                self._execute("DELETE FROM bill WHERE name = ?", name)
            total = "(SELECT coalesce(sum(amount), 0) FROM item WHERE bill = bill.name)"
            self._execute(f"UPDATE bill SET total = {total} WHERE name = ? AND total <> {total}", name)
            self._execute("UPDATE backhaul_replica SET group_id = NULL")

    def _new_doc(self) -> None:
        self._execute("INSERT OR IGNORE INTO doc VALUES (?, ?, NULL)", self._shared("doc", 3), self._text())

    def _change_doc(self) -> None:
        column = self._random.choice(["body", "body", "shade"])
        self._execute(f"UPDATE doc SET {column} = ? WHERE name = ?", self._text(), self._shared("doc", 3))

    def _delete_doc(self) -> None:
        if self._random.random() < 0.3:
            self._execute("DELETE FROM doc WHERE name = ?", self._shared("doc", 3))

    def _new_memo(self) -> None:
        self._execute("INSERT OR IGNORE INTO memo VALUES (?, ?, NULL)", self._shared("memo", 3), self._text())

    def _change_memo(self) -> None:
        column = self._random.choice(["said", "tone"])
        self._execute(f"UPDATE memo SET {column} = ? WHERE name = ?", self._text(), self._shared("memo", 3))

    def _delete_memo(self) -> None:
        self._execute("DELETE FROM memo WHERE name = ?", self._shared("memo", 3))

    def _new_ticket(self) -> None:
        self._execute("INSERT INTO ticket (what) VALUES (?)", self._text())

    def _change_ticket(self) -> None:
        row = self._some_row("ticket")
        if row is not None:
            self._execute("UPDATE ticket SET what = ? WHERE id = ?", self._text(), row[0])

    def _new_article(self) -> None:
        serial = self._random.choice([None, None, self._text()])
        self._execute("INSERT OR IGNORE INTO article VALUES (?, ?, ?)", self._shared("article", ARTICLES), None, serial)

    def _price(self) -> None:
        price = self._number * 10**6 + next(self._values)
        self._execute("UPDATE article SET price = ? WHERE name = ?", price, self._shared("article", ARTICLES))

    def _serial(self) -> None:
        """Mostly where there is none: who changes one finds it parked."""
        missing = "" if self._random.random() < 0.3 else " AND serial IS NULL"
        article = self._shared("article", ARTICLES)
        self._execute(f"UPDATE article SET serial = ? WHERE name = ?{missing}", self._text(), article)

    @property
    def _colour(self) -> str:
        return "hue" if "hue" in self._columns("tag") else "colour"

    def _columns(self, table: str) -> list[str]:
        return [row[1] for row in self.connection.execute(f"PRAGMA table_info({table})")]

    # ------------------------------------------------------------------------------------------------ of all

    def _execute(self, statement: str, *parameters: object) -> None:
        self.connection.execute(statement, parameters)

    def _some_row(self, table: str) -> tuple[object, ...] | None:
        rows = self.connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
        return self._random.choice(rows) if rows else None

    def _where(self, table: str, row: tuple[object, ...]) -> tuple[str, tuple[object, ...]]:
        if table == "line":
            return "invoice_id = ? AND position = ?", row[:2]
        return ("name = ?" if table == "tag" else "id = ?"), row[:1]

    def _generated_key(self, table: str) -> int | None:
        """Mostly one of this replica's own; sometimes one that others may take as well. None: it is taken here (a remap
        takes the number after the highest)."""
        own = self._random.random() < 0.7
        key = self._number * 1_000 + next(self._keys) if own else self._random.randint(1, SHARED_KEYS)
        taken = self.connection.execute(f"SELECT 1 FROM {table} WHERE id = ?", (key,)).fetchone()
        return None if taken else key

    def _shared_name(self) -> str:
        return self._shared("tag", SHARED_KEYS)

    def _shared(self, what: str, number: int) -> str:
        return f"{what} {self._random.randrange(number)}"

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
