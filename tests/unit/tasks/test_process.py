"""What a worker's process counts and has not written yet is written when it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery.signals import worker_process_shutdown, worker_shutdown
from celery.utils.dispatch import Signal

from backhaul.clock import SystemClock
from backhaul.migrations import upgrade_replica
from backhaul.remotes import traffic
from config.loading import load
from tasks import process

SETTINGS = """
[replica]
database = "sqlite:///shop.db"
remote = "https://a.example"

[conditions]
unmetered = false

[budget.roaming]
day = "20MB"
"""


@pytest.mark.parametrize("signal", [worker_process_shutdown, worker_shutdown])
def test_nothing_that_was_counted_is_lost_when_the_process_ends(tmp_path: Path, signal: Signal) -> None:
    (tmp_path / "backhaul.toml").write_text(SETTINGS)
    settings = load(tmp_path)
    database = process.database(settings)
    upgrade_replica(database)
    counting = process.meter(settings)
    assert counting is not None
    before = SystemClock().now()
    for _ in range(3):
        counting.count(1_000, 0)
    signal.send(sender=None)
    with database.reading() as connection:
        days = {traffic.local_day(now) for now in (before, SystemClock().now())}
        assert sum(traffic.spent(connection, settings.node, day).day for day in days) == 3_000
    database.close()
