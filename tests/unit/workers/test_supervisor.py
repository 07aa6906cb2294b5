from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backhaul.errors import Misused
from tests.waiting import eventually
from workers.folder_lock import the_only_one
from workers.supervisor import Child, Supervisor
from workers.warden import end_groups

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]
# Its own child would outlive it, if the group were not swept.
PARENT = [
    sys.executable,
    "-c",
    "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])",
    SLEEPER[2],
]


@pytest.fixture
def died() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def supervisor(died: list[tuple[str, int]]) -> Iterator[Supervisor]:
    made = Supervisor(lambda child, status: died.append((child.name, status)))
    yield made
    made.stop()
    made.close()


def child(folder: Path, command: list[str], name: str = "sleeper") -> Child:
    return Child(name=name, command=command, folder=folder, log=folder / "logs" / f"{name}.log")


def is_up(one: Child) -> bool:
    return one.log.read_text().count("up") >= one.starts


def lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_dies_is_started_again_after_a_pause_that_grows(
    supervisor: Supervisor, died: list[tuple[str, int]], tmp_path: Path
) -> None:
    one = child(tmp_path, SLEEPER)
    supervisor.start(one)
    pauses = []
    for starts in (2, 3):
        os.kill(one.pid or 0, signal.SIGKILL)
        eventually(lambda starts=starts: supervisor.look() or one.starts == starts, what="it runs again")
        pauses.append(one.pause)
    assert died == [("sleeper", -signal.SIGKILL)] * 2
    assert pauses[1] == 2 * pauses[0]


def test_the_children_of_one_that_was_killed_are_not_left(supervisor: Supervisor, tmp_path: Path) -> None:
    one = child(tmp_path, PARENT)
    supervisor.start(one)
    eventually(lambda: is_up(one), what="the child of the child is up")
    group = one.pid or 0
    os.kill(group, signal.SIGKILL)
    eventually(lambda: supervisor.look() or not lives(group), what="the whole group has ended")


def test_stopping_ends_all_and_forgets_them(supervisor: Supervisor, tmp_path: Path) -> None:
    children = [child(tmp_path, SLEEPER, name) for name in ("one", "two")]
    for one in children:
        supervisor.start(one)
    groups = [one.pid or 0 for one in children]
    supervisor.stop()
    assert supervisor.children == []
    assert not any(lives(group) for group in groups)


def test_who_does_not_listen_is_killed_after_the_grace(tmp_path: Path) -> None:
    log = tmp_path / "out"
    with log.open("wb") as out:
        process = subprocess.Popen(STUBBORN, stdout=out, start_new_session=True)
    eventually(lambda: "up" in log.read_text(), what="it is up")
    end_groups([process.pid], grace=0.2)
    assert process.wait(60) == -signal.SIGKILL


def test_when_the_supervisor_is_killed_the_warden_ends_what_it_has_started(tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from workers.supervisor import Child, Supervisor
folder = Path({str(tmp_path)!r})
one = Child(name="sleeper", command={SLEEPER!r}, folder=folder, log=folder / "sleeper.log")
Supervisor(lambda *_: None).start(one)
print(one.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        group = int(process.stdout.readline())
        assert lives(group)
        process.kill()
    eventually(lambda: not lives(group), what="the warden has ended it")


def test_a_folder_has_one_up_at_a_time(tmp_path: Path) -> None:
    taken = pytest.raises(Misused, match=rf"already \(process {os.getpid()}\)")
    with the_only_one(tmp_path), taken, the_only_one(tmp_path):
        pass
    with the_only_one(tmp_path):
        pass
