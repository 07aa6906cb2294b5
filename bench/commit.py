"""What a commit costs the app while the broker is there, and while it is not: medians of single-row commits.

The engine is hooked by `Backhaul(engine)` with the real bell; the broker is a real redis-server, and then none. The
three cases take turns, a commit each, so that a noisy machine is noisy for all of them. No worker runs.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from sqlalchemy import Engine, create_engine, text

from backhaul import Backhaul
from bench.field import Field, field
from config.bell import CeleryBell
from config.broker import EmbeddedBroker
from config.loading import load

COMMITS = 400
ROUNDS = 3


def measure() -> dict[str, list[float]]:
    """Ratios to the commit of an engine without Backhaul, one figure a round, for broker up and broker down."""
    ratios: dict[str, list[float]] = {"broker up": [], "broker down": []}
    for _ in range(ROUNDS):
        with field() as made:
            broker = EmbeddedBroker(made.home / ".backhaul")
            broker.ensure()
            up = _medians(made)
            broker.stop()
            down = _medians(made)
        ratios["broker up"].append(up["hooked"] / up["plain"])
        ratios["broker down"].append(down["hooked"] / down["plain"])
    return ratios


def _medians(made: Field) -> dict[str, float]:
    plain, hooked = _engine(made.home), _engine(made.home)
    backhaul = Backhaul(hooked, bell=CeleryBell(load(made.home)))
    spent: dict[str, list[float]] = {"plain": [], "hooked": []}
    for number in range(COMMITS):
        for name, engine in (("plain", plain), ("hooked", hooked)):
            spent[name].append(_commit(engine, f"{name}-{time.time_ns()}-{number}"))
    backhaul.close()
    plain.dispose()
    hooked.dispose()
    return {name: statistics.median(times) for name, times in spent.items()}


def _engine(home: Path) -> Engine:
    return create_engine(f"sqlite:///{home / 'app.sqlite'}")


def _commit(engine: Engine, key: str) -> float:
    statement = text("INSERT INTO activity VALUES (:id, 'run', 'a', 'b', 1, '[]', 'c', '[]')")
    began = time.perf_counter()
    with engine.begin() as connection:
        connection.execute(statement, {"id": key})
    return time.perf_counter() - began


if __name__ == "__main__":
    for case, ratios in measure().items():
        print(f"commit, {case}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
