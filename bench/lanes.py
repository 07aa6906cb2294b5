"""40,000 changes of one outbox on PostgreSQL, from the first claim to the last ack: by one worker, and by four.

Each worker is a Celery worker of one process with its own connection, as on a machine of its own; broker, Beat, the
replica's database and the server with its own database are all real, and on this machine. One and four take turns, so
that the ratio is of one run. The time is what the database says, as in push.py.

Once over a line with a round trip, as there is one wherever the server is another machine; and once without. There,
on a machine of two cores, one worker with its database and the server behind it keep more than half of both busy.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url

from bench.field import COMMAND, until
from bench.link import link
from bench.push import stored
from bench.records import COLUMNS, TABLE, records
from tests.services import PostgreSQL, postgresql

ROUNDS = 3
ROUND_TRIPS = (40.0, 0.0)  # milliseconds
CHANGES = 40_000
WORKERS = (1, 4)
TOGETHER = 8  # rows of one commit of the app
LEFT = "SELECT count(*) FROM backhaul_outbox WHERE state <> 'acked'"


def measure(round_trip_ms: float) -> dict[int, list[float]]:
    """Changes a second, one figure a round, by how many workers there are."""
    found: dict[int, list[float]] = {count: [] for count in WORKERS}
    with postgresql() as cluster, _replica(cluster, round_trip_ms) as (home, app):
        _round(home, app, 0, 1)  # the first one starts from cold
        for number in range(1, ROUNDS + 1):
            for count in WORKERS:
                found[count].append(_round(home, app, number * 10 + count, count))
    return found


@contextmanager
def _replica(cluster: PostgreSQL, round_trip_ms: float) -> Iterator[tuple[Path, psycopg.Connection[Any]]]:
    with tempfile.TemporaryDirectory(prefix="backhaul-bench-") as name, ExitStack() as ends:
        folder, ours, theirs = Path(name), cluster.database(), cluster.database()
        log = folder / "serve.log"
        where = ("--data", str(folder / "server"), "--database", theirs)
        ends.enter_context(_running(folder, log, [*COMMAND, "serve", *where, "--port", "0"]))
        until(lambda: "listening on " in log.read_text(), 30, "the server listens")
        url = log.read_text().split("listening on ")[1].split()[0]
        if round_trip_ms:
            url = ends.enter_context(link(url, round_trip_ms))
        home = folder / "home"
        home.mkdir()
        app = psycopg.connect(make_url(ours).set(drivername="postgresql").render_as_string(False), autocommit=True)
        ends.callback(app.close)
        app.execute(TABLE)
        code = _said(folder, "enroll", *where)
        _said(home, "init", "--database", ours, "--remote", url, "--code", code)
        yield home, app


def _round(home: Path, app: psycopg.Connection[Any], seed: int, count: int) -> float:
    _said(home, "condition", "set", "connected", "off")
    with _workers(home, count):
        until(lambda: _one(app, "SELECT count(*) FROM backhaul_worker") >= count, 60, "the workers are there")
        _write(app, seed)
        before = _one(app, "SELECT coalesce(max(started_at), 0) FROM backhaul_work WHERE task = 'backhaul.push'")
        _said(home, "condition", "set", "connected", "on")
        began = (
            f"SELECT coalesce(min(started_at), 0) FROM backhaul_work WHERE id LIKE 'push%' AND started_at > {before}"
        )
        until(lambda: _one(app, began) > 0, 60, "the push has begun")
        start = _one(app, began)
        until(lambda: _one(app, LEFT) == 0, 300, "all is sent", pause=0.25)
        end = _one(app, "SELECT last_push_at FROM backhaul_replica")
    _said(home, "pull")
    return CHANGES / (end - start) * 1000


@contextmanager
def _workers(home: Path, count: int) -> Iterator[None]:
    settings = home / "backhaul.toml"  # not the environment: commands are of the same settings
    settings.write_text(
        re.sub(r"(?m)^(\[sync\]\n)(push_lanes = .*\n)?", rf"\1push_lanes = {count}\n", settings.read_text())
    )
    environment = {**os.environ, "BACKHAUL_HOME": str(home)}
    celery = [sys.executable, "-m", "celery", "-A", "workers.app"]
    with ExitStack() as ends:
        for number in range(count):
            command = [*celery, "worker", "-n", f"sync{number}@%h", "-Q", "sync", "-c", "1", "--without-mingle"]
            ends.enter_context(_running(home, home / f"worker{number}.log", command, environment))
        ends.enter_context(_running(home, home / "beat.log", [*celery, "beat"], environment))
        yield


@contextmanager
def _running(folder: Path, log: Path, command: list[str], environment: dict[str, str] | None = None) -> Iterator[None]:
    with log.open("wb") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said, env=environment)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _write(app: psycopg.Connection[Any], seed: int) -> None:
    rows = [(f"{seed}-{r['id']}", *(stored(r[name]) for name in COLUMNS[1:])) for r in records(CHANGES, seed=seed)]
    statement = f"INSERT INTO activity VALUES ({', '.join(['%s'] * len(COLUMNS))})"
    for first in range(0, CHANGES, TOGETHER):
        with app.transaction(), app.cursor() as cursor:
            cursor.executemany(statement, rows[first : first + TOGETHER])  # type: ignore[arg-type]


def _one(app: psycopg.Connection[Any], statement: str) -> int:
    (found,) = app.execute(statement).fetchone() or (0,)  # type: ignore[arg-type]
    return int(found or 0)


def _said(folder: Path, *words: str) -> str:
    done = subprocess.run((*COMMAND, *words), cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    for round_trip in ROUND_TRIPS:
        found = measure(round_trip)
        print(
            round_trip, json.dumps({count: [round(figure) for figure in figures] for count, figures in found.items()})
        )
