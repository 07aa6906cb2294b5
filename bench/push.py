"""10,000 changes, from the first claim to the last ack, through a real worker, broker and server.

The changes are written while the queue is closed; then it opens. The time is what the database says: when the run of
the push began, and when its last batch was settled.
"""

from __future__ import annotations

import json
import statistics

from bench.field import Field, field, until
from bench.records import COLUMNS, records

ROUNDS = 5
CHANGES = 10_000


def measure() -> list[float]:
    """Changes a second, one figure a round."""
    with field() as made:
        made.backhaul("condition", "set", "connected", "off")
        with made.up():
            return [one_round(made, number) for number in range(ROUNDS)]


def one_round(made: Field, number: int, *, condition: str = "connected") -> float:
    """condition: which the queue needs; it does not hold now."""
    app = made.connect()
    rows = [tuple(stored(record[name]) for name in COLUMNS) for record in records(CHANGES, seed=number)]
    rows = [(f"{number}-{row[0]}", *row[1:]) for row in rows]
    with app:
        app.executemany(f"INSERT INTO activity VALUES ({', '.join('?' * len(COLUMNS))})", rows)
    (before,) = app.execute("SELECT coalesce(started_at, 0) FROM backhaul_work WHERE id = 'push'").fetchone()
    made.backhaul("condition", "set", condition, "on")
    until(lambda: _began(app) > before, 30, "the push has begun")
    began = _began(app)
    until(lambda: _open(app) == 0, 120, "everything is acknowledged", pause=0.05)
    (ended,) = app.execute("SELECT last_push_at FROM backhaul_replica").fetchone()
    made.backhaul("condition", "set", condition, "off")
    app.close()
    return CHANGES / (ended - began) * 1000


def _began(app: object) -> int:
    statement = "SELECT coalesce(started_at, 0) FROM backhaul_work WHERE id = 'push'"
    return int(app.execute(statement).fetchone()[0])  # type: ignore[attr-defined]


def _open(app: object) -> int:
    statement = "SELECT count(*) FROM backhaul_outbox WHERE state IN ('pending', 'sent')"
    return int(app.execute(statement).fetchone()[0])  # type: ignore[attr-defined]


def stored(value: object) -> object:
    return json.dumps(value) if isinstance(value, list) else value


if __name__ == "__main__":
    figures = measure()
    print(f"push: {statistics.median(figures):,.0f} changes a second ({min(figures):,.0f} to {max(figures):,.0f})")
