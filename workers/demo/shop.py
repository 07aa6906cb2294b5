"""The app of the demo: a field service's database, written as any app would, with SQLAlchemy and no word of sync.

Only two lines are Backhaul's: `Backhaul(engine)`, and `backhaul.media.put(photo)`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from backhaul import Backhaul

SCHEMA = """
    CREATE TABLE customers (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, phone TEXT, address TEXT, note TEXT);
    CREATE TABLE visits (
        id TEXT PRIMARY KEY, customer_id TEXT NOT NULL REFERENCES customers (id), day TEXT NOT NULL, report TEXT,
        photo TEXT);
    CREATE TABLE invoices (
        id TEXT PRIMARY KEY, customer_id TEXT NOT NULL REFERENCES customers (id), total_cents INTEGER NOT NULL);
    CREATE TABLE invoice_lines (
        invoice_id TEXT NOT NULL REFERENCES invoices (id), position INTEGER NOT NULL, what TEXT NOT NULL,
        cents INTEGER NOT NULL, PRIMARY KEY (invoice_id, position));
"""
TABLES = ("customers", "visits", "invoices", "invoice_lines")
CUSTOMERS = (
    ("C-1", "Bakery Lindqvist", "555-0101", "3 Mill Lane", None),
    ("C-2", "Hotel Aurora", "555-0102", "12 Harbour Street", None),
    ("C-3", "Dr. Okafor", "555-0103", "8 Station Square", None),
)
PHOTO_BYTES = 2 * 2**20


class Shop:
    """One replica's app. file: of its SQLite database."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._engine = create_engine(f"sqlite:///{file}")
        self.backhaul = Backhaul(self._engine)

    def write(self, *statements: tuple[str, dict[str, Any]]) -> None:
        """All in one transaction."""
        with self._engine.begin() as connection:
            for statement, values in statements:
                connection.execute(text(statement), values)

    def visit(self, key: str, customer: str, report: str, photo: str | None = None) -> None:
        statement = "INSERT INTO visits VALUES (:id, :customer, '2026-05-04', :report, :photo)"
        self.write((statement, {"id": key, "customer": customer, "report": report, "photo": photo}))

    def invoice(self, key: str, customer: str, lines: Sequence[tuple[str, int]]) -> None:
        """The invoice and its lines in one transaction: on the server they arrive together, or not at all."""
        total = sum(cents for _, cents in lines)
        head = (
            "INSERT INTO invoices VALUES (:id, :customer, :total)",
            {"id": key, "customer": customer, "total": total},
        )
        line = "INSERT INTO invoice_lines VALUES (:id, :position, :what, :cents)"
        rest = [
            (line, {"id": key, "position": position, "what": what, "cents": cents})
            for position, (what, cents) in enumerate(lines, start=1)
        ]
        self.write(head, *rest)

    def edit(self, customer: str, **fields: str) -> None:
        setting = ", ".join(f"{name} = :{name}" for name in fields)
        self.write((f"UPDATE customers SET {setting} WHERE id = :id", {"id": customer, **fields}))  # noqa: S608 - our names

    def customer(self, key: str) -> dict[str, Any]:
        with self._engine.connect() as connection:
            return dict(connection.execute(text("SELECT * FROM customers WHERE id = :id"), {"id": key}).one()._mapping)

    def has(self, table: str, key: str) -> bool:
        with self._engine.connect() as connection:
            statement = f"SELECT 1 FROM {table} WHERE id = :id"  # noqa: S608 - our own names
            return connection.execute(text(statement), {"id": key}).first() is not None

    def close(self) -> None:
        self.backhaul.close()
        self._engine.dispose()


def make_database(file: Path, *, customers: bool) -> None:
    """What the app had before it knew of Backhaul. customers: with some in it already."""
    connection = sqlite3.connect(file)
    with connection:
        connection.executescript(SCHEMA)
        if customers:
            connection.executemany("INSERT INTO customers VALUES (?, ?, ?, ?, ?)", CUSTOMERS)
    connection.close()


def make_photo(folder: Path, name: str) -> Path:
    """As large as a photo, and no more compressible."""
    file = folder / name
    file.write_bytes(b"\xff\xd8\xff\xe0" + os.urandom(PHOTO_BYTES - 6) + b"\xff\xd9")
    return file
