from __future__ import annotations

from backhaul.database import Database
from backhaul.work import roster
from backhaul.work.roster import QueueState

MEDIA = QueueState(name="media", open=False, reason="unmetered is off (configured)", since=900)


def test_a_worker_that_beats_is_alive_and_one_that_falls_silent_is_not(database: Database) -> None:
    with database.writing() as connection:
        roster.beat(connection, name="media@kiosk", pid=7, queues=[MEDIA], now=1_000)
        (worker,) = roster.alive(connection, 2_000, 1_000)
        assert worker.queues == (MEDIA,)
        assert worker.serves("media") == MEDIA
        assert worker.serves("sync") is None
        assert roster.alive(connection, 2_001, 1_000) == []


def test_a_second_beat_keeps_the_start_and_another_process_begins_anew(database: Database) -> None:
    with database.writing() as connection:
        roster.beat(connection, name="a", pid=7, queues=[], now=1_000)
        roster.beat(connection, name="a", pid=7, queues=[MEDIA], now=2_000)
        (worker,) = roster.alive(connection, 2_000, 500)
        assert (worker.started_at, worker.seen_at, worker.queues) == (1_000, 2_000, (MEDIA,))
        roster.beat(connection, name="a", pid=8, queues=[], now=3_000)
        assert roster.alive(connection, 3_000, 500)[0].started_at == 3_000


def test_a_worker_that_leaves_is_gone_at_once_and_the_silent_are_forgotten(database: Database) -> None:
    with database.writing() as connection:
        for name, now in (("a", 1_000), ("b", 5_000), ("c", 6_000)):
            roster.beat(connection, name=name, pid=1, queues=[], now=now)
        roster.leave(connection, "c")
        assert roster.forget_gone(connection, now=6_000, older_than_ms=3_000) == 1
        assert [worker.name for worker in roster.alive(connection, 6_000, 10_000)] == ["b"]
