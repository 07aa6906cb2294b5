"""Whether the two replicas and the server hold the same rows: read straight from the three databases."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from workers.demo.shop import TABLES
from workers.demo.stage import Stage

Rows = dict[str, dict[str, Any]]


def differences(stage: Stage) -> tuple[int, list[str]]:
    """How many rows there are, and a sentence for every table that is not the same everywhere."""
    found, rows = [], 0
    for table in TABLES:
        laptop, key = _of_replica(stage.laptop.file, table)
        office, _ = _of_replica(stage.office.file, table)
        server = _of_server(stage.data / "server.sqlite", table, key)
        rows += len(server)
        if not laptop == office == server:
            found.append(f"{table}: laptop {len(laptop)} rows, office {len(office)}, server {len(server)}")
    return rows, found


def _of_replica(file: Path, table: str) -> tuple[Rows, list[str]]:
    """The rows by their key, and the key's columns."""
    with closing(sqlite3.connect(file)) as connection:
        connection.row_factory = sqlite3.Row
        key = [row["name"] for row in connection.execute(f"PRAGMA table_info({table})") if row["pk"]]
        rows = connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - our own names
        return {json.dumps([row[name] for name in key]): dict(row) for row in rows}, key


def _of_server(file: Path, table: str, key: list[str]) -> Rows:
    statement = "SELECT key, fields FROM server_record WHERE table_name = ? AND deleted = 0 AND born > 0"
    with closing(sqlite3.connect(file)) as connection:
        rows = [(json.loads(of), json.loads(fields)) for of, fields in connection.execute(statement, (table,))]
        return {json.dumps(of): dict(zip(key, of, strict=True)) | fields for of, fields in rows}
