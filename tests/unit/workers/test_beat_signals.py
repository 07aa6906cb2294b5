"""Beat's scheduler, when a signal ends it in the middle of a look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.migrations import upgrade_replica
from backhaul.work import lease
from config.celery import make_app
from config.loading import load
from workers.beat import LEASE, LedgerScheduler
from workers.replica import WorkerReplica

SETTINGS = """
[replica]
database = "sqlite:///shop.db"
remote = "http://127.0.0.1:1"
"""


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[LedgerScheduler]:
    (tmp_path / "backhaul.toml").write_text(SETTINGS)
    settings = load(tmp_path)
    database = open_database(settings.database_url)
    upgrade_replica(database)
    database.close()
    app = make_app(settings, current=False)
    app.replica = WorkerReplica(settings)
    made = LedgerScheduler(app)
    yield made
    made.close()
    app.close()


def leader(scheduler: LedgerScheduler) -> str | None:
    with scheduler._replica.database.using() as database, database.reading() as connection:
        return lease.holder(connection, LEASE, SystemClock().now())


def test_a_signal_in_the_middle_of_a_look_waits_for_nothing_and_the_lease_is_given_back_after_it(
    scheduler: LedgerScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler closes the scheduler inside the look's transaction, which holds the row of the lease, and raises."""
    closed: list[str] = []

    def interrupted(*_: object, **__: object) -> bool:
        scheduler.close()
        closed.append("in the look")
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(lease, "release", lambda *_: pytest.fail("it would wait for the look's own transaction"))
        patch.setattr(lease, "take", interrupted)
        with pytest.raises(SystemExit):
            scheduler.tick()
    assert closed == ["in the look"]
    scheduler.tick()
    assert leader(scheduler) is not None
    scheduler.close()
    assert leader(scheduler) is None
