"""`backhaul demo`: the whole story, to its end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.acceptance.conftest import processes_of

SCENES = ("Setting up", "In the cellar", "On the road", "At home", "Both edit", "The broker", "Are all three equal?")


@pytest.mark.slow
def test_the_demo_ends_with_three_equal_sides_and_leaves_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "workers.cli", "demo"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": tempfile.gettempdir()},
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert time.monotonic() - began < 120
    assert [scene for scene in SCENES if scene not in done.stdout] == []
    assert "Summary" in done.stdout
    assert "What to try next" in done.stdout
    assert "FLUSHALL" in done.stdout
    assert list(Path(tempfile.gettempdir()).glob("backhaul-demo-*")) == []
    assert processes_of(Path(tempfile.gettempdir()) / "backhaul-demo-") == {}
    assert done.stderr == ""
