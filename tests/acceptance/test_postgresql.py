"""A replica whose database is PostgreSQL, through the command line: `init`, `up`, `status`, `why`, `verify`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.branch import COMMAND, OFTEN, ServerProcess, backhaul
from tests.services import PostgreSQL
from tests.waiting import eventually

SCHEMA = """
    CREATE TABLE shop (code text PRIMARY KEY, label text, price numeric(10, 2), opened timestamptz);
    CREATE TABLE visit (id bigserial PRIMARY KEY, shop text NOT NULL REFERENCES shop (code), note text);
    INSERT INTO shop VALUES ('a', 'there before', 12.50, '2024-02-29 12:00:00+02');
"""


@pytest.fixture
def server(tmp_path: Path) -> Any:
    process = ServerProcess(tmp_path / "server")
    process.start()
    yield process
    process.stop()


@pytest.mark.slow
def test_a_replica_on_postgresql_is_made_run_asked_and_equal(
    cluster: PostgreSQL, server: ServerProcess, tmp_path: Path
) -> None:
    url = cluster.database()
    plain = url.replace("postgresql+psycopg", "postgresql")
    home, other = tmp_path / "office", tmp_path / "van"
    home.mkdir()
    other.mkdir()
    with psycopg.connect(plain, autocommit=True) as app:
        app.execute(SCHEMA)
        said = backhaul("init", "--database", plain, "--remote", server.url, "--code", server.enroll(), cwd=home)
        assert "shop" in said.stdout
        again = backhaul("init", "--database", plain, "--remote", server.url, "--code", "X", cwd=other, status=None)
        assert again.returncode != 0
        assert "replica" in again.stderr
        with (home / "up.log").open("wb") as out:
            running = subprocess.Popen(
                (*COMMAND, "up", "--no-flower"), cwd=home, env=os.environ | OFTEN, stdout=out, stderr=out
            )
        try:
            eventually(lambda: pushed(home) == 0, timeout=60, what="the backfill was sent")
            app.execute("INSERT INTO visit (shop, note) VALUES ('a', 'written by a program without any hook')")
            eventually(lambda: "synced" in why(home, "visit"), timeout=60, what="the visit is synced")
        finally:
            running.terminate()
            running.wait(60)
        verified = backhaul("verify", "--json", cwd=home)
        assert json.loads(verified.stdout)["equal"] is True
        looked = backhaul("doctor", "--json", cwd=home, status=None).stdout
        assert "PostgreSQL" in looked


def pushed(home: Path) -> int:
    return int(json.loads(backhaul("status", "--json", cwd=home).stdout)["pending"])


def why(home: Path, table: str) -> str:
    done = backhaul("why", table, "1", cwd=home, status=None)
    return done.stdout


def test_a_database_that_cannot_be_reached_changes_nothing(server: ServerProcess, tmp_path: Path) -> None:
    words = ("init", "--database", "postgresql://nobody@127.0.0.1:1/none", "--remote", server.url, "--code", "X")
    home = tmp_path / "empty"
    home.mkdir()
    done = backhaul(*words, cwd=home, status=None)
    assert done.returncode != 0
    assert "cannot be opened" in done.stderr
    assert list(home.iterdir()) == []
