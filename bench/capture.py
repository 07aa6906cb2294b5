"""What capture costs the app: the same ORM workload with and without it, in turns, as a ratio of CPU time.

Inserts and updates in commits of ten records, on SQLite in WAL mode, through `Backhaul(engine)` with a bell that
rings nobody (the real one works on a thread of its own).
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Engine, create_engine, event, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from backhaul import Backhaul
from backhaul.bell import SilentBell
from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.replica import enrol
from backhaul.server.memory import MemoryRemote, MemoryServer
from bench.records import TABLE, records

ROUNDS = 12
RECORDS = 2_000
COMMIT = 10
EDITS: dict[str, Any] = {"notes": " again", "distance": 1, "title": "!", "tags": ["late"]}


class Base(DeclarativeBase):
    pass


class Activity(Base):
    __tablename__ = "activity"
    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    title: Mapped[str]
    started_at: Mapped[str]
    distance: Mapped[int]
    heart_rate: Mapped[list[int]] = mapped_column(JSON)
    notes: Mapped[str]
    tags: Mapped[list[str]] = mapped_column(JSON)


def measure() -> dict[str, list[float]]:
    """Ratios with capture to without, a pair a round; which goes first alternates."""
    ratios: dict[str, list[float]] = {"insert": [], "update": []}
    for number in range(ROUNDS):
        spent: dict[bool, dict[str, float]] = {}
        for captured in (True, False) if number % 2 else (False, True):
            spent[captured] = _one(captured)
        for what, found in ratios.items():
            found.append(spent[True][what] / spent[False][what])
    return ratios


def _one(captured: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        engine = _engine(Path(folder) / "app.sqlite")
        backhaul = _replica(engine, Path(folder)) if captured else None
        insert = _cpu(lambda: _inserts(engine))
        update = _cpu(lambda: _updates(engine))
        if backhaul is not None:
            assert backhaul.status().pending == 2 * RECORDS
            backhaul.close()
        engine.dispose()
        return {"insert": insert, "update": update}


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def _opened(connection: object, _record: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")  # type: ignore[attr-defined]
        connection.execute("PRAGMA synchronous = NORMAL")  # type: ignore[attr-defined]

    with engine.begin() as connection:
        connection.execute(text(TABLE))
    return engine


def _replica(engine: Engine, home: Path) -> Backhaul:
    server, database = MemoryServer(), open_database(engine.url)
    enrol.enrol(
        database,
        MemoryRemote(server),
        code=server.enrol(),
        url="memory:",
        home=str(home),
        name="bench",
        names=[],
        clock=SystemClock(),
    )
    database.close()
    return Backhaul(engine, bell=SilentBell())


def _cpu(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _inserts(engine: Engine) -> None:
    made = list(records(RECORDS))
    with Session(engine) as session:
        for begin in range(0, RECORDS, COMMIT):
            session.add_all([Activity(**record) for record in made[begin : begin + COMMIT]])
            session.commit()
            session.expunge_all()


def _updates(engine: Engine) -> None:
    """One field of each record, by weight: notes 4, distance 3, title 2, tags 1."""
    draw = random.Random(7)
    ids = [record["id"] for record in records(RECORDS)]
    with Session(engine) as session:
        for begin in range(0, RECORDS, COMMIT):
            for activity in session.scalars(select(Activity).where(Activity.id.in_(ids[begin : begin + COMMIT]))):
                field = draw.choices(("notes", "distance", "title", "tags"), (4, 3, 2, 1))[0]
                setattr(activity, field, getattr(activity, field) + EDITS[field])
            session.commit()
            session.expunge_all()


if __name__ == "__main__":
    for what, ratios in measure().items():
        print(f"{what}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
