"""What Celery is told of a message: by which exception, or by none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Ignore, Reject, Retry

from backhaul.clock import SystemClock
from backhaul.database import Database, open_database
from backhaul.migrations import upgrade_replica
from backhaul.work import Work, WorkRequest, ledger
from backhaul.work.run import Settled
from tasks import base
from tasks.base import WorkFailed, run_work, told
from tasks.revoking import Revoked


@pytest.fixture
def work(tmp_path: Path) -> Work:
    database: Database = open_database(f"sqlite:///{tmp_path}/app.db")
    upgrade_replica(database)
    with database.writing() as connection:
        made = ledger.enqueue(connection, WorkRequest(task="note"), queue="sync", now=SystemClock().now())
    database.close()
    return made


def test_what_is_done_is_an_answer(work: Work) -> None:
    assert told(Settled("done", work)) == "done"
    assert told(Settled("done", work, due_at=work.due_at + 60_000)) == "done"  # periodic


def test_a_failure_is_told_by_the_first_line_of_its_reason(work: Work) -> None:
    with pytest.raises(WorkFailed, match=r"^a bug$"):
        told(Settled("failed", work, "a bug\n[parameters: a secret]"))


@pytest.mark.parametrize("kind", ["retry", "stopped", "handed-back", "not-claimed"])
def test_what_waits_for_another_run_is_told_with_its_time(work: Work, kind: Any) -> None:
    with pytest.raises(Retry) as caught:
        told(Settled(kind, work, "the till is open", SystemClock().now() + 60_400))
    assert "the till is open; again in 60" in str(caught.value.exc)
    assert 59 < caught.value.when <= 60.4


def test_of_a_message_that_another_one_has_come_before_nothing_is_told(work: Work) -> None:
    with pytest.raises(Ignore) as caught:
        told(Settled("not-claimed", work, "it is not waiting for this message"))
    assert not isinstance(caught.value, Revoked)


@pytest.mark.parametrize("reason", [None, "EXPIRED"])
def test_what_is_cancelled_is_revoked(work: Work, reason: str | None) -> None:
    with pytest.raises(Revoked) as caught:
        told(Settled("cancelled", replace(work, stop_reason=reason), "cancelled by the app"))
    assert (caught.value.reason, caught.value.expired) == ("cancelled by the app", reason == "EXPIRED")


def test_a_worker_that_ends_gives_its_messages_back(monkeypatch: pytest.MonkeyPatch, work: Work) -> None:
    monkeypatch.setattr(base.ending, "begun", lambda: True)
    request = SimpleNamespace(delivery_info={"routing_key": "sync"}, hostname="one@crew")
    task: Any = SimpleNamespace(app=SimpleNamespace(settings=None), request=request)
    with pytest.raises(Reject) as caught:
        run_work(task, work.id, 0, lambda context: None)
    assert caught.value.requeue
