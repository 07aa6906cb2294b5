"""The main job on a real database: a music shop's, with 15,000 rows in eleven tables, one of them with a composite key.

A program without any hook writes a thousand changes with plain sqlite3; a second replica, empty at first, ends up equal
row for row. Then the same while the worker, the broker and the server are killed in the middle.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.branch import Branch, ServerProcess, backhaul
from tests.waiting import eventually

TABLES = (
    "Album", "Artist", "Customer", "Employee", "Genre", "Invoice", "InvoiceLine", "MediaType", "Playlist",
    "PlaylistTrack", "Track",
)  # fmt: skip
CHANGES = 1_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path / "server")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def shop(chinook: Path, tmp_path: Path, server: ServerProcess) -> Branch:
    home = tmp_path / "shop"
    home.mkdir()
    return Branch(home, Path(shutil.move(chinook, home / "shop.db")), server)


@pytest.fixture
def second(shop: Branch, tmp_path: Path, server: ServerProcess) -> Branch:
    """The same tables, without a row."""
    home = tmp_path / "second"
    home.mkdir()
    old = shop.connect()
    made = old.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND tbl_name NOT LIKE 'backhaul_%'")
    new = sqlite3.connect(home / "second.db")
    for (statement,) in made.fetchall():
        if "sqlite_sequence" not in statement:
            new.execute(statement)
    new.close()
    old.close()
    return Branch(home, home / "second.db", server)


def a_days_work(shop: Branch, draw: random.Random, changes: int, *, after: Callable[[int], None]) -> None:
    """Sales, corrections and returns by a program that knows nothing of Backhaul; some in one transaction."""
    app = shop.connect()
    app.execute("PRAGMA foreign_keys = ON")
    tracks = [row[0] for row in app.execute("SELECT TrackId FROM Track")]
    customers = [row[0] for row in app.execute("SELECT CustomerId FROM Customer")]
    done = 0
    while done < changes:
        with app:
            done += draw.choice([_sale, _correction, _curation, _return])(app, draw, tracks, customers)
        after(done)
    app.close()


def _sale(app: sqlite3.Connection, draw: random.Random, tracks: list[int], customers: list[int]) -> int:
    lines = draw.randint(1, 5)
    statement = "INSERT INTO Invoice (CustomerId, InvoiceDate, BillingCity, Total) VALUES (?, ?, ?, ?)"
    sold = app.execute(statement, (draw.choice(customers), "2026-11-20 10:00:00", "Zürich ☂", 0.99 * lines))
    for _ in range(lines):
        values = (sold.lastrowid, draw.choice(tracks), 0.99, 1)
        app.execute("INSERT INTO InvoiceLine (InvoiceId, TrackId, UnitPrice, Quantity) VALUES (?, ?, ?, ?)", values)
    return 1 + lines


def _correction(app: sqlite3.Connection, draw: random.Random, _tracks: list[int], customers: list[int]) -> int:
    values = (f"+41 {draw.randrange(10**9)}", draw.choice([None, "Bern", "Genève"]), draw.choice(customers))
    app.execute("UPDATE Customer SET Phone = ?, City = ? WHERE CustomerId = ?", values)
    return 1


def _curation(app: sqlite3.Connection, draw: random.Random, tracks: list[int], _customers: list[int]) -> int:
    playlist = draw.randint(1, 18)
    added = app.execute("INSERT OR IGNORE INTO PlaylistTrack VALUES (?, ?)", (playlist, draw.choice(tracks)))
    chosen = "SELECT TrackId FROM PlaylistTrack WHERE PlaylistId = ? LIMIT 1"
    gone = app.execute(f"DELETE FROM PlaylistTrack WHERE PlaylistId = ? AND TrackId IN ({chosen})", (playlist,) * 2)
    return added.rowcount + gone.rowcount


def _return(app: sqlite3.Connection, draw: random.Random, _tracks: list[int], _customers: list[int]) -> int:
    (newest,) = app.execute("SELECT max(InvoiceId) FROM Invoice").fetchone()
    lines = app.execute("DELETE FROM InvoiceLine WHERE InvoiceId = ?", (newest,))
    return lines.rowcount + app.execute("DELETE FROM Invoice WHERE InvoiceId = ?", (newest,)).rowcount


def all_is_equal(shop: Branch, second: Branch) -> bool:
    return all(shop.rows(table) == second.rows(table) for table in TABLES)


def settled(branch: Branch) -> bool:
    said = branch.status()
    assert said["parked"] == 0, backhaul("parked", "list", cwd=branch.home).stdout
    return bool(said["pending"] == 0 and not said["backfill"]["tables_waiting"])


def all_arrives(shop: Branch, second: Branch) -> None:
    eventually(lambda: settled(shop), timeout=60, what="everything is on the server")
    eventually(lambda: all_is_equal(shop, second), timeout=60, what="the second replica is equal, row for row")
    for branch in (shop, second):
        eventually(
            lambda branch=branch: backhaul("verify", cwd=branch.home, status=None).returncode == 0,
            timeout=30,
            what="both sides have the same fingerprints",
        )


@pytest.mark.chaos
def test_a_thousand_changes_of_a_program_without_a_hook_reach_the_other_replica(shop: Branch, second: Branch) -> None:
    """The next one shows it with each `make test`, under worse conditions; here each row is sent once and no more."""
    with shop.up(), second.up():
        a_days_work(shop, random.Random(1), CHANGES, after=lambda _done: None)
        all_arrives(shop, second)
    assert len(shop.rows("Track")) == 3503
    assert shop.status()["backfill"]["rows_sent"] == 15_607


@pytest.mark.slow
def test_the_same_while_worker_broker_and_server_are_killed(
    shop: Branch, second: Branch, server: ServerProcess
) -> None:
    known = [0]

    def server_is_up() -> bool:
        return server.process is not None and server.process.poll() is None

    def server_has_more(shop: Branch) -> bool:
        return (shop.one("SELECT last_push_at FROM backhaul_replica") or 0) > known[0]

    disasters: list[tuple[int, Callable[[], object]]] = [
        (100, shop.kill_workers),
        (250, lambda: shop.broker().flushall()),
        (400, lambda: _kill_broker(shop)),
        (550, server.kill),
        (700, server.start),
        (800, lambda: shop.broker().flushall()),
        (900, second.kill_workers),
    ]

    def strike(done: int) -> None:
        while disasters and disasters[0][0] <= done:
            eventually(lambda: server_has_more(shop), timeout=60, what="the sync goes on after the last disaster")
            disasters.pop(0)[1]()
            known[0] = time.time_ns() // 1_000_000 if server_is_up() else 0

    with shop.up(), second.up():
        a_days_work(shop, random.Random(2), CHANGES, after=strike)
        assert disasters == []
        all_arrives(shop, second)
    assert len(shop.rows("Track")) == 3503


def _kill_broker(branch: Branch) -> None:
    os.kill(branch.broker().info()["process_id"], signal.SIGKILL)


def test_init_says_what_it_chose_for_each_table(shop: Branch) -> None:
    lines = {line.split()[0]: line for line in shop.told.splitlines() if line.strip()}
    assert "generated" in lines["Invoice"]
    assert "PlaylistId, TrackId" in lines["PlaylistTrack"]
    assert "natural" in lines["PlaylistTrack"]
