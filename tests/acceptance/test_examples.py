"""The examples as they stand there: copied into a replica's folder, registered as they say, run against a server."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from backhaul.clock import SystemClock
from backhaul.testing import Harness
from tests.acceptance.conftest import Server, backhaul, execute, joined, make_home, rows, started, synced
from tests.conftest import ROOT
from tests.waiting import eventually


class Example:
    """One of them in a replica's folder, and a harness over the replica's own database."""

    def __init__(self, name: str, home: Path) -> None:
        self.name = name
        self.home = home
        shutil.copy(ROOT / "examples" / f"{name}.py", home)
        settings = home / "backhaul.toml"
        asked = dict(re.findall(r"^    \[(\S+)\]\n    (.*)$", (home / f"{name}.py").read_text(), re.MULTILINE))
        said, prepared = settings.read_text(), '# modules = ["shop.background"]'
        assert said.count(prepared) == 1
        said = said.replace(prepared, asked.pop("work"))
        assert not asked, "every replica has what an example needs"
        settings.write_text(said)
        self.registered()
        spec = importlib.util.spec_from_file_location(name, home / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(importlib.util.module_from_spec(spec))  # as a worker imports it
        self.engine = create_engine(f"sqlite:///{home}/shop.db")
        self.harness = Harness(self.engine, clock=SystemClock())

    def registered(self) -> None:
        """As the example says."""
        script = [sys.executable, f"{self.name}.py"]
        done = subprocess.run(script, cwd=self.home, env=dict(os.environ), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def listed(self) -> list[dict[str, Any]]:
        return list(backhaul("work", "list", "--json", home=self.home).json["work"])

    def close(self) -> None:
        self.harness.close()
        self.engine.dispose()


@pytest.fixture
def other(replica: Path, server: Server, tmp_path: Path) -> Path:
    return joined(make_home(tmp_path / "other"), server, scope=str(replica))


def test_a_nightly_sync_sends_and_fetches_everything_once_its_constraints_hold(replica: Path, other: Path) -> None:
    example = Example("nightly_sync", replica)
    (work,) = example.listed()
    assert (work["work"], work["name"], work["state"]) == ("nightly_sync.sync", "nightly-sync", "ENQUEUED")
    assert (work["interval_ms"], work["flex_ms"]) == (12 * 3_600_000, 12 * 3_600_000)
    assert set(work["requires"]) == {"connected", "unmetered", "battery_not_low"}
    example.registered()
    assert [one["id"] for one in example.listed()] == [work["id"]]

    execute(replica, "INSERT INTO customer VALUES (10, 'Here', NULL)")
    execute(other, "INSERT INTO customer VALUES (11, 'There', NULL)")
    synced(other)
    example.harness.set(connected=True, unmetered=True)
    assert example.harness.run_due() == []
    assert "battery_not_low" in example.harness.why(work["id"])
    example.harness.set(battery_not_low=True)
    (ran,) = example.harness.run_due()
    assert (ran.kind, ran.error) == ("done", None)
    assert rows(replica, "SELECT name FROM customer WHERE id = 11") == [("There",)]
    synced(other)
    assert rows(other, "SELECT name FROM customer WHERE id = 10") == [("Here",)]

    (again,) = example.listed()
    assert (again["state"], again["runs"]) == ("ENQUEUED", 1)
    assert again["due_at"] - again["enqueued_at"] == 12 * 3_600_000
    example.close()


def test_a_content_sync_takes_the_place_of_the_one_before(replica: Path, other: Path) -> None:
    example = Example("content_sync", replica)
    (former,) = example.listed()
    assert set(former["requires"]) == {"connected", "unmetered", "charging"}
    example.registered()
    states = {one["id"]: (one["state"], one["name"]) for one in example.listed()}
    assert states.pop(former["id"]) == ("CANCELLED", None)
    ((work_id, state),) = states.items()
    assert state == ("ENQUEUED", "content-sync")

    execute(other, "INSERT INTO customer VALUES (12, 'News', NULL)")
    synced(other)
    example.harness.set(connected=True, unmetered=True, charging=True)
    (ran,) = example.harness.run_due()
    assert (ran.id, ran.kind, ran.error) == (work_id, "done", None)
    shown = json.loads((replica / "content.json").read_text())
    assert {"id": 12, "name": "News"} in shown
    example.close()


@pytest.mark.chaos
def test_a_nightly_sync_is_run_by_real_workers_as_soon_as_they_may(replica: Path, other: Path) -> None:
    """That it syncs, and only once its constraints hold, is shown above in one process; that workers run the functions
    of a host as soon as they may, in the journeys of workers."""
    execute(other, "INSERT INTO customer VALUES (13, 'There', NULL)")
    synced(other)
    backhaul("condition", "set", "battery_not_low", "off", home=replica)
    example = Example("nightly_sync", replica)
    example.close()
    (work,) = example.listed()
    with started("up", "--no-flower", "--concurrency", "1", folder=replica, until="ready"):
        eventually(lambda: "workers: " in why(replica, work["id"]), 90, "workers are there", pause=0.5)
        assert "battery_not_low (off by override" in why(replica, work["id"])
        backhaul("condition", "set", "battery_not_low", "on", home=replica)
        eventually(lambda: example.listed()[0]["runs"] == 1, 90, "it has run", pause=0.5)
    (after,) = example.listed()
    assert (after["last_outcome"], after["last_error"]) == ("success", None)
    assert rows(replica, "SELECT name FROM customer WHERE id = 13") == [("There",)]


def why(home: Path, work_id: str) -> str:
    return str(backhaul("work", "why", work_id, home=home).out)
