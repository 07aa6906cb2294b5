from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.probed import FrozenClock
from tests.waiting import eventually
from workers.probes.aside import Aside

LOOK = """
import sys
from gevent import monkey
monkey.patch_all()
import threading, time
from backhaul.clock import SystemClock
from workers.probes.aside import Aside

told = threading.Event()
aside = Aside(lambda: open(sys.argv[1]).read(), clock=SystemClock(), done=told.set, name="pipe", patience=0.1)
assert aside.begin(0)
while not aside.overdue:
    time.sleep(0.01)
print("overdue", flush=True)
while aside.running:
    time.sleep(0.01)
assert told.wait(20)
print(aside.found, flush=True)
aside.begin(0)
while not aside.overdue:
    time.sleep(0.01)
print("and ends while a look hangs", flush=True)
"""


def test_a_look_that_the_kernel_holds_does_not_hold_gevent(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # whoever opens it to read waits in the kernel for one who writes
    process = subprocess.Popen([sys.executable, "-c", LOOK, str(pipe)], stdout=subprocess.PIPE, text=True)
    patience = threading.Timer(30, process.kill)
    patience.start()
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "overdue\n"
        pipe.write_text("found")
        assert process.stdout.read() == "found\nand ends while a look hangs\n"
    patience.cancel()
    assert process.returncode == 0


def test_where_no_thread_can_be_had_nothing_was_looked_at(clock: FrozenClock, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Aside(lambda: "found", clock=clock, done=lambda: None, name="test")
    found.begin(clock.now())
    eventually(lambda: not found.running)
    read_at = clock.now()
    assert (found.found, found.looks, found.read_at) == ("found", 1, read_at)
    monkeypatch.setattr(threading.Thread, "start", _refuse)
    assert not found.begin(clock.advance(1_000))
    assert (found.found, found.looks, found.read_at, found.running) == (None, 1, read_at, False)


def _refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
