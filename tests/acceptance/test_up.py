"""`backhaul up`: everything comes up, stays up, and goes; nothing is left running, whatever happens to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import backhaul, execute, make_home, processes_of, rows
from tests.waiting import eventually

SETTINGS = '[sync]\npull_every = "1s"\n[retry.push]\ninitial = "500ms"\nmost = "2s"\n'


class Up:
    """A running `backhaul up --server`, in a folder that it makes a replica of its own server."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home.parent / "up.out"
        command = ["up", "--server", "--json", "--concurrency", "1", "--home", str(home)]
        if not (home / "backhaul.toml").exists():
            (home / "backhaul.toml").write_text(SETTINGS)
            command += ["--database", "sqlite:///shop.db"]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workers.cli", *command],
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        eventually(lambda: self.is_ready() or self.process.poll() is not None, 60, "up is ready")
        assert self.process.poll() is None, self.log.read_text()
        self.said: dict[str, Any] = json.loads(self.log.read_text())

    def is_ready(self) -> bool:
        try:
            return bool(json.loads(self.log.read_text())["ready"])
        except ValueError:
            return False

    def worker(self, name: str) -> int:
        """Its process id, by its own word in the database; 0 when it has not spoken since."""
        found = rows(self.home, f"SELECT pid FROM backhaul_worker WHERE name LIKE '{name}@%'")
        return int(found[0][0]) if found else 0

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def up(home: Path) -> Iterator[Up]:
    running = Up(home)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop(signal.SIGTERM)
        eventually(lambda: not processes_of(home), 30, f"nothing is left running: {processes_of(home)}")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(make_home(tmp_path_factory.mktemp("up") / "home")) as started:
        yield started


def test_it_makes_the_folder_a_replica_and_says_where_everything_is(running: Up) -> None:
    said = running.said
    assert set(said["addresses"]) == {"server", "broker", "flower"}
    assert said["queues"] == {"sync": ["sync", "maintenance", "background"], "media": ["media"]}
    assert set(said["processes"]) == {"server", "sync", "media", "beat", "flower"}
    status = backhaul("status", "--json", home=running.home).json
    assert {worker["name"].partition("@")[0] for worker in status["workers"]} == {"sync", "media"}
    assert all(queue["open"] and queue["workers"] == 1 for queue in status["queues"])
    with urllib.request.urlopen(said["addresses"]["flower"], timeout=10) as page:
        assert page.status == 200


def test_what_any_program_writes_is_on_the_server_soon(running: Up) -> None:
    execute(running.home, "UPDATE customer SET phone = '77'; DELETE FROM line")
    pending = lambda: backhaul("status", "--json", home=running.home).json["pending"]  # noqa: E731
    eventually(lambda: pending() == 0, 20, "all is sent")
    said = backhaul("sync", "--wait", "--timeout", "30", home=running.home)
    assert said.status == 0, said
    assert "in this process" not in said.out
    assert backhaul("verify", home=running.home).status == 0
    assert backhaul("reconcile", "--wait", "--timeout", "30", home=running.home).status == 0


def test_a_second_up_is_refused(running: Up) -> None:
    said = backhaul("up", home=running.home)
    assert said.status == 2
    assert f"backhaul up runs in {running.home} already (process {running.process.pid})" in said.err
    assert f"hint: end that one: kill {running.process.pid}" in said.err


@pytest.mark.parametrize("name", ["sync", "media"])
def test_a_worker_that_is_killed_is_started_again(name: str, running: Up) -> None:
    former = running.worker(name)
    os.kill(former, signal.SIGKILL)
    eventually(lambda: running.worker(name) not in (0, former), 30, f"the worker {name} is back")
    execute(running.home, "UPDATE customer SET phone = phone || '1'")
    assert backhaul("sync", "--wait", "--timeout", "40", home=running.home).status == 0


def test_a_file_that_is_gone_is_parked_with_the_reason(running: Up) -> None:
    home = running.home
    for name in ("here.jpg", "gone.jpg"):
        (home / name).write_bytes(b"light" * 20_000)
    backhaul("condition", "set", "unmetered", "off", home=home)
    backhaul("media", "put", "--in-place", "here.jpg", "gone.jpg", home=home)
    (home / "gone.jpg").unlink()
    backhaul("condition", "clear", "unmetered", home=home)

    def uploads() -> dict[str, Any]:
        return {one["name"]: one for one in backhaul("media", "list", "--json", home=home).json["uploads"]}

    eventually(lambda: uploads()["gone.jpg"]["state"] == "parked" and uploads()["here.jpg"]["state"] == "done", 30)
    assert "gone.jpg" in uploads()["gone.jpg"]["reason"]
    assert uploads()["here.jpg"]["queue"] == "media"
    assert backhaul("why", uploads()["gone.jpg"]["id"], home=home).out.startswith("FAILED: ")


@pytest.mark.slow
def test_it_ends_cleanly_comes_back_and_leaves_nothing_even_when_it_is_killed(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with up(home) as first:
        address = first.said["addresses"]["server"]
        assert first.stop(signal.SIGTERM) == 0
        assert processes_of(home) == {}

    with up(home) as second:
        assert second.said["addresses"]["server"] == address
        second.process.kill()
        second.process.wait()
        with up(home) as third:  # it waits until all that is left of the second has ended
            pids = set(third.said["processes"].values())
            assert not pids & set(second.said["processes"].values())
            execute(home, "UPDATE customer SET phone = '99'")
            assert backhaul("sync", "--wait", "--timeout", "30", home=home).status == 0
            assert third.stop(signal.SIGINT) == 0
        assert processes_of(home) == {}
