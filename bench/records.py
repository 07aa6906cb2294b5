"""The records that the benchmarks write: eight fields, about 300 bytes, made from a seed, no network, no files."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any
from uuid import UUID

KINDS = ("run", "ride", "walk", "swim", "lift", "note")
PLACES = ("harbour", "forest", "old town", "ridge", "canal", "stadium", "dunes", "café")
WORDS = (
    "steady",
    "windy",
    "rain",
    "hill",
    "easy",
    "pace",
    "legs",
    "heavy",
    "première",
    "sun",
    "late",
    "coffee",
    "knee",
)

TABLE = """
    CREATE TABLE activity (
        id TEXT PRIMARY KEY, kind TEXT NOT NULL, title TEXT NOT NULL, started_at TEXT NOT NULL,
        distance INTEGER NOT NULL, heart_rate TEXT NOT NULL, notes TEXT NOT NULL, tags TEXT NOT NULL)
"""
COLUMNS = ("id", "kind", "title", "started_at", "distance", "heart_rate", "notes", "tags")


def records(number: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    draw = random.Random(seed)
    for count in range(number):
        kind, place = draw.choice(KINDS), draw.choice(PLACES)
        yield {
            "id": str(UUID(int=(count << 80) | draw.getrandbits(80))),  # in time order, as UUIDv7 are
            "kind": kind,
            "title": f"{draw.choice(WORDS)} {kind} {place}",
            "started_at": f"2026-{count % 12 + 1:02}-{count % 28 + 1:02}T{count % 24:02}:00:00Z",
            "distance": draw.randrange(50_000),
            "heart_rate": [draw.randrange(60, 185) for _ in range(10)],
            "notes": " ".join(draw.choice(WORDS) for _ in range(11)),
            "tags": draw.sample(WORDS, 2),
        }
