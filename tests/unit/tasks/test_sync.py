"""A message of a push, where the database is out of reach before the run, or after it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Retry

from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.errors import DatabaseBusy
from backhaul.migrations import upgrade_replica
from backhaul.work import Work, WorkRequest, ledger
from backhaul.work.run import Settled
from config.settings import Settings
from tasks import process, sync


@pytest.fixture
def push(tmp_path: Path) -> Work:
    database = open_database(f"sqlite:///{tmp_path}/app.db")
    upgrade_replica(database)
    with database.writing() as connection:
        made = ledger.enqueue(
            connection, WorkRequest(task="backhaul.push", id="push"), queue="sync", now=SystemClock().now()
        )
    database.close()
    return made


@pytest.fixture(autouse=True)
def _out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_settings: Settings) -> Any:
        raise DatabaseBusy("the database does not answer")

    monkeypatch.setattr(process, "database", refuse)


def pushed(home: Path, **sync_section: int) -> str:
    request = SimpleNamespace(delivery_info={"routing_key": "sync"}, hostname="sync@here")
    app = SimpleNamespace(settings=Settings(home=home, sync=sync_section))
    told: str = sync.push_changes.run.__func__(SimpleNamespace(app=app, request=request), "push", 0)
    return told


@pytest.mark.parametrize("lanes", [1, 2])
def test_before_the_run_it_is_a_retry(tmp_path: Path, lanes: int) -> None:
    with pytest.raises(Retry, match="does not answer"):
        pushed(tmp_path, push_lanes=lanes)


def test_after_the_run_it_is_done_all_the_same(tmp_path: Path, push: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_task: Any, _work: str, _generation: int, _body: Any) -> Settled:
        return Settled("done", push, due_at=push.due_at + 60_000)

    monkeypatch.setattr(sync, "_wake_if_pending", lambda *_: None)
    monkeypatch.setattr(sync, "run_work", run)
    assert pushed(tmp_path) == "done"
