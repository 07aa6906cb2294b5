"""What is rung for, of which queues the broker is asked, and that a closed queue costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backhaul.database import Database, open_database
from backhaul.migrations import upgrade_replica
from backhaul.work import WorkRequest, ledger, roster
from backhaul.work.roster import QueueState
from workers import ringing

NOON = 1_767_355_200_000
QUEUES = ["media", "quiet", "sync"]


class Desk:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.said: list[str] = []
        self.asked: list[str] = []
        self.messages: dict[str, int] = {}

    @contextmanager
    def using(self) -> Iterator[Database]:
        yield self.database

    def enqueue(self, queue: str) -> str:
        with self.database.writing() as connection:
            return ledger.enqueue(connection, WorkRequest(task="shop.mail"), queue=queue, now=NOON).id

    def listen(self, now: int = NOON, **opened: bool) -> None:
        states = [QueueState(name=name, open=is_open) for name, is_open in opened.items()]
        with self.database.writing() as connection:
            roster.beat(connection, name="w1", pid=1, queues=states, now=now)

    def ring(self, now: int) -> list[str]:
        self.said.clear()
        self.asked.clear()
        ringing.ring_due(self, self, now=now, ring_again_ms=ringing.RING_AGAIN_MS, queues=QUEUES)  # type: ignore[arg-type]
        return sorted(self.said)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    database = open_database(f"sqlite:///{tmp_path}/app.db")
    upgrade_replica(database)
    made = Desk(database)

    def waiting(_app: Any, queue: str) -> int:
        made.asked.append(queue)
        return made.messages.get(queue, 0)

    monkeypatch.setattr(ringing, "publish", lambda _app, rings: made.said.extend(ring.work_id for ring in rings))
    monkeypatch.setattr(ringing, "waiting_messages", waiting)
    yield made
    database.close()


def test_what_was_rung_is_rung_again_where_a_worker_listens_and_no_message_waits(desk: Desk) -> None:
    works = {queue: desk.enqueue(queue) for queue in QUEUES}
    desk.listen(media=False, quiet=True, sync=True)
    assert desk.ring(NOON) == sorted(works.values())
    assert desk.asked == []  # for nothing has waited since it was rung
    later = NOON + ringing.RING_AGAIN_MS
    desk.messages["sync"] = 1
    assert (desk.ring(later), desk.asked) == ([works["quiet"]], ["quiet", "sync"])
    assert desk.ring(later + 1) == []
    desk.listen(later + 1, media=True)
    assert (desk.ring(later + 1), desk.asked) == ([works["media"]], ["media"])


def test_of_a_queue_that_nobody_serves_the_broker_is_not_asked(desk: Desk) -> None:
    work = desk.enqueue("media")
    assert desk.ring(NOON) == [work]
    assert (desk.ring(NOON + ringing.RING_AGAIN_MS), desk.asked) == ([], [])


def test_a_worker_whose_clock_goes_wrong_by_a_minute_listens_all_the_same(desk: Desk) -> None:
    work = desk.enqueue("sync")
    desk.ring(NOON)
    later = NOON + 2 * ringing.RING_AGAIN_MS
    desk.listen(later - 60_000, sync=True)
    assert desk.ring(later) == [work]
