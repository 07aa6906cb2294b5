"""10,000 records into an empty replica, from the first question to the last commit, over HTTP from a real server.

The replica that has them pushed them before; what is timed is the journey alone, in this process, without a worker.
"""

from __future__ import annotations

import sqlite3
import statistics
import time
from pathlib import Path
from typing import Any

from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.remotes.http import HttpRemote
from backhaul.replica import enrol, pull
from bench.field import Field, field
from bench.push import stored
from bench.records import COLUMNS, TABLE, records

ROUNDS = 5
RECORDS = 10_000


class _Undisturbed:
    def check(self) -> None:
        pass

    def progress(self, said: dict[str, Any]) -> None:
        pass


def measure() -> list[float]:
    """Records a second, one figure a round; each round is a replica of its own."""
    with field() as made:
        app = made.connect()
        with app:
            rows = [tuple(stored(record[name]) for name in COLUMNS) for record in records(RECORDS)]
            app.executemany(f"INSERT INTO activity VALUES ({', '.join('?' * len(COLUMNS))})", rows)
        app.close()
        made.backhaul("push")
        return [_round(made, number) for number in range(ROUNDS)]


def _round(made: Field, number: int) -> float:
    path = made.home / f"second {number}.sqlite"
    app = sqlite3.connect(path)
    app.execute(TABLE)
    app.close()
    database, remote = open_database(f"sqlite:///{path}"), HttpRemote(made.url)
    code = made.backhaul("enroll", "--data", str(Path(made.home).parent / "server"))
    enrol.enrol(
        database, remote, code=code, url=made.url, home=str(made.home), name=path.stem, names=[], clock=SystemClock()
    )
    began = time.perf_counter()
    received = pull.pull(database, remote, clock=SystemClock(), context=_Undisturbed())
    seconds = time.perf_counter() - began
    remote.close()
    database.close()
    assert received.records == RECORDS, received
    return RECORDS / seconds


if __name__ == "__main__":
    figures = measure()
    print(f"pull: {statistics.median(figures):,.0f} records a second ({min(figures):,.0f} to {max(figures):,.0f})")
