"""The standing work: what there is of it follows the settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from backhaul.database import open_database
from backhaul.errors import ConfigurationInvalid, Misused
from backhaul.migrations import upgrade_replica
from backhaul.work import ledger
from backhaul.work.request import WorkRequest
from config.loading import load
from config.schedule import ensure_standing, lane_number, lane_work, pace_interval

REPLICA = '[replica]\ndatabase = "postgresql://shop"\nremote = "https://a.example"\n'
NOW = 1_800_000_000_000


def standing(connection: Connection) -> dict[str, str]:
    rows = connection.execute(text("SELECT id, task FROM backhaul_work WHERE state = 'ENQUEUED' ORDER BY id"))
    return {row.id: row.task for row in rows}


def test_there_is_a_push_for_each_lane(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'shop.sqlite'}")
    upgrade_replica(database)
    one = {"pull": "backhaul.pull", "push": "backhaul.push", "reconcile": "backhaul.reconcile"}
    try:
        for lanes, more in ((1, []), (4, [1, 2, 3]), (2, [1]), (3, [1, 2]), (1, [])):
            (tmp_path / "backhaul.toml").write_text(REPLICA + f"[sync]\npush_lanes = {lanes}\n")
            with database.writing() as connection:
                ensure_standing(connection, load(tmp_path), NOW)
                assert standing(connection) == one | {lane_work(number): "backhaul.push" for number in more}
    finally:
        database.close()


def test_files_are_read_where_a_table_names_some(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'shop.sqlite'}")
    upgrade_replica(database)
    try:
        named = "[tables.photo.media]\ncolumn = 'path'\n"
        for written, there in (
            ("", set[str]()),
            (named, {"attach"}),
            (named + "transform = 'image'\n", {"attach", "transform"}),
            ("", set()),
        ):
            (tmp_path / "backhaul.toml").write_text(REPLICA + written)
            with database.writing() as connection:
                ensure_standing(connection, load(tmp_path), NOW)
                assert {"attach", "transform"}.intersection(standing(connection)) == there
                work = ledger.get(connection, "attach")
            assert work is None or (work.queue, work.task) == ("media", "backhaul.attach")
    finally:
        database.close()


def test_the_work_says_the_lane() -> None:
    assert [lane_work(number) for number in (0, 1, 12)] == ["push", "push-1", "push-12"]
    assert [lane_number(lane_work(number)) for number in range(16)] == list(range(16))


def test_an_interval_that_was_learned_outlives_the_process_and_host_work_is_never_stretched(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'shop.sqlite'}")
    upgrade_replica(database)
    (tmp_path / "backhaul.toml").write_text(REPLICA + '[sync]\npull_every = "30s"\npull_most = "70s"\n')
    settings = load(tmp_path)

    def interval(now: int) -> int:
        with database.writing() as connection:
            ensure_standing(connection, settings, now)
            pull = ledger.get(connection, "pull")
        assert pull is not None
        return pull.interval_ms

    def run(now: int, changed: int) -> ledger.Work:
        with database.writing() as connection:
            waiting = ledger.wake(connection, "pull", now)
            assert waiting is not None
            work = ledger.claim(connection, "pull", waiting.generation, worker="w", now=now, lease_ms=1_000)
            assert work is not None
            pace_interval(connection, settings, work, changed=changed, now=now)
            return ledger.succeed(connection, work, now=now)

    try:
        assert interval(NOW) == 30_000
        assert run(NOW, 0).interval_ms == 30_000  # nothing has passed before the first look
        seen = [run(NOW + step * 100_000, 0) for step in range(1, 8)]
        assert [work.interval_ms for work in seen][:3] == [37_500, 45_000, 52_500]
        assert seen[-1].interval_ms == 70_000
        assert seen[-1].due_at == NOW + 700_000 + 70_000
        assert interval(NOW + 700_000) == 70_000
        assert run(NOW + 800_000, 500).interval_ms == 35_000
        assert run(NOW + 801_000, 500).interval_ms == 17_500
        assert run(NOW + 802_000, 0).interval_ms == 17_500  # woken again at once: no sign
        (tmp_path / "backhaul.toml").write_text(REPLICA + '[sync]\npull_every = "50s"\n')
        settings = load(tmp_path)
        assert interval(NOW + 900_000) == 50_000  # another usual one begins anew

        with database.writing() as connection:
            request = WorkRequest(task="shop.tidy", interval_ms=900_000)
            asked = ledger.enqueue(connection, request, queue="sync", now=NOW)
            host = ledger.claim(connection, asked.id, 0, worker="w", now=NOW, lease_ms=1_000)
            assert host is not None
            with pytest.raises(Misused, match="none of sync's own"):
                ledger.set_interval(connection, host, 1_800_000)
    finally:
        database.close()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('pull_every = "30s"\npull_most = "10s"', "pull_every is to lie between pull_least and pull_most"),
        ('reconcile_least = "13h"', "reconcile_every is to lie between"),
    ],
)
def test_a_usual_interval_beyond_its_bounds_is_refused(tmp_path: Path, written: str, said: str) -> None:
    (tmp_path / "backhaul.toml").write_text(f"{REPLICA}[sync]\n{written}\n")
    with pytest.raises(ConfigurationInvalid, match=said):
        load(tmp_path)
