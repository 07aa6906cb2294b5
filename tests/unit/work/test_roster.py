from __future__ import annotations

from typing import Any

from backhaul.database import Database
from backhaul.work import roster
from backhaul.work.conditions import Condition
from backhaul.work.reading import Reading
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


def test_a_later_start_with_the_same_pid_is_another_process(database: Database) -> None:
    """As in a container, where each start has the same pid."""
    with database.writing() as connection:
        for now in (1_000, 2_000):
            roster.beat(connection, name="a", pid=1, queues=[], started_at=900, now=now)
            roster.misrouted(connection, "a")
        (worker,) = roster.alive(connection, 2_000)
        assert (worker.started_at, worker.misrouted) == (900, 2)
        roster.beat(connection, name="a", pid=1, queues=[], started_at=2_500, now=3_000)
        (worker,) = roster.alive(connection, 3_000)
        assert (worker.started_at, worker.misrouted) == (2_500, 0)


def test_a_worker_that_leaves_is_gone_at_once_and_the_silent_are_forgotten(database: Database) -> None:
    with database.writing() as connection:
        for name, now in (("a", 1_000), ("b", 5_000), ("c", 6_000)):
            roster.beat(connection, name=name, pid=1, queues=[], now=now)
        roster.leave(connection, "c")
        assert roster.forget_gone(connection, now=6_000, older_than_ms=3_000) == 1
        assert [worker.name for worker in roster.alive(connection, 6_000, 10_000)] == ["b"]


def test_a_worker_tells_how_its_node_is_and_one_name_on_two_nodes_is_two_workers(database: Database) -> None:
    seen = Reading(name="charging", answer="no", since=1, read_at=2, source="UPower", detail="BAT0")
    held = Condition(name="charging", value=False, source="probe", since=1, by="UPower", answer="no", read_at=2)
    said: dict[str, Any] = {
        "labels": {"region:eu"},
        "readings": {"charging": seen},
        "conditions": {"charging": held},
        "concurrency": 2,
        "processes": {8, 9},
    }
    with database.writing() as connection:
        roster.beat(connection, name="w", node="kiosk", pid=1, queues=[MEDIA], now=1_000, **said)
        roster.beat(connection, name="w", node="attic", pid=2, queues=[], now=1_000)
        attic, kiosk = roster.alive(connection, 1_000)
        assert (attic.node, attic.pid, attic.labels, attic.conditions) == ("attic", 2, frozenset(), {})
        assert {name: getattr(kiosk, name) for name in said} == said
        for _ in range(3):
            roster.misrouted(connection, "w", "kiosk")
        roster.beat(connection, name="w", node="kiosk", pid=1, queues=[MEDIA], now=1_500, **said)
        assert [one.misrouted for one in roster.alive(connection, 1_500)] == [0, 3]
        roster.beat(connection, name="w", node="kiosk", pid=9, queues=[MEDIA], now=1_900, **said)
        assert [one.misrouted for one in roster.alive(connection, 1_900)] == [0, 0]  # started again
        roster.leave(connection, "w", "attic")
        assert [one.node for one in roster.alive(connection, 1_000)] == ["kiosk"]
