"""How large the chunks of an upload are, on a link of which nothing was learned yet."""

from __future__ import annotations

import pytest

from backhaul.aimd import QUICK_MS, SLOW_MS
from backhaul.database import Database
from backhaul.media.chunks import FIRST_CHUNK_BYTES, Chunks

MOST = 4 * 2**20


@pytest.mark.parametrize(("took_ms", "within"), [(QUICK_MS - 1, 6), (QUICK_MS, 150), (SLOW_MS, 150)])
def test_with_any_constant_latency_that_is_not_slow_they_grow_to_the_most(
    database: Database, took_ms: int, within: int
) -> None:
    chunks = Chunks(database, most=MOST)
    assert chunks.size == FIRST_CHUNK_BYTES
    with database.writing() as connection:
        for now in range(within):
            chunks.went_through(connection, chunks.size, took_ms=took_ms, now=now)
    assert chunks.size == MOST
