"""Records that are fetched once more, in as many answers as it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backhaul.errors import Refused
from backhaul.replica import refetch
from backhaul.server.memory import MemoryRemote, MemoryServer
from backhaul.wire import Record
from tests.unit.replica.conftest import MakeReplica


class Terse(MemoryRemote):
    """Answers with two records at most."""

    def __init__(self, server: MemoryServer, replica: str | None) -> None:
        super().__init__(server, replica)
        self.asked: list[int] = []

    def records(self, keys: Sequence[tuple[str, list[Any]]]) -> list[Record]:
        self.asked.append(len(keys))
        if len(keys) > 2:
            raise Refused("too many", problem="answer-too-large", status=413)
        return super().records(keys)


def test_records_that_are_too_much_for_one_answer_come_in_parts(make: MakeReplica, server: MemoryServer) -> None:
    a = make("a")
    a.write("INSERT INTO customer (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'), (5, 'e')")
    a.sync()
    a.write("UPDATE customer SET name = 'given up'")
    a.write("DELETE FROM backhaul_outbox")
    assert isinstance(a.remote, MemoryRemote)
    terse = Terse(server, a.remote.replica)
    places = {("customer", f"[{key}]"): () for key in range(1, 6)}
    refetch.lay_under(a.database, terse, places, lambda _: None, absent="leave")
    assert [row[1] for row in a.rows("customer")] == ["a", "b", "c", "d", "e"]
    assert max(terse.asked) == 5
    assert sum(one for one in terse.asked if one <= 2) == 5
