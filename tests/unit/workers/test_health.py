"""Health checks say what is wrong, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from backhaul.clock import SystemClock
from backhaul.database import open_database
from backhaul.migrations import upgrade_replica
from backhaul.work import lease
from tests.services import free_port, sync_server
from workers import beat, health


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "backhaul.toml").write_text(
        '[replica]\ndatabase = "sqlite:///shop.db"\nremote = "http://127.0.0.1:1"\n', "utf-8"
    )
    monkeypatch.setenv("BACKHAUL_HOME", str(tmp_path))
    return tmp_path


def lead(home: Path, ms: int) -> None:
    database = open_database(f"sqlite:///{home / 'shop.db'}")
    upgrade_replica(database)
    with database.writing() as connection:
        lease.take(connection, beat.LEASE, "somebody", now=SystemClock().now(), ms=ms)
    database.close()


def test_beat_is_well_while_somebody_leads(home: Path) -> None:
    lead(home, ms=60_000)
    assert health.main(["beat"]) is None


def test_beat_is_not_well_once_the_lease_has_passed(home: Path) -> None:
    lead(home, ms=-1)
    assert health.main(["beat"]) == "no beat leads"


def test_beat_is_not_well_in_a_folder_without_a_replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKHAUL_HOME", str(tmp_path))
    assert "holds no replica" in str(health.main(["beat"]))


def test_the_server_is_well_while_it_answers(tmp_path: Path) -> None:
    with sync_server(tmp_path) as server:
        assert health.main(["http", f"{server.url}/v1/health"]) is None
        assert "404" in str(health.main(["http", f"{server.url}/v1/nowhere"]))


def test_what_does_not_answer_is_not_well() -> None:
    assert "refused" in str(health.main(["http", f"http://127.0.0.1:{free_port()}/v1/health"]))


def test_anything_else_is_answered_with_how_to_ask() -> None:
    assert "python -m workers.health" in str(health.main([]))
