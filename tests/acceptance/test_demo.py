"""`backhaul demo`: the whole story, to its end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import processes_of

SCENES = ("Setting up", "In the cellar", "On the road", "At home", "Both edit", "The broker", "Are all three equal?")


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A Unix socket's path may not be long, and pytest's folders are."""
    with tempfile.TemporaryDirectory(prefix="bd-") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_the_demo_ends_with_three_equal_sides_and_leaves_nothing(short_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "workers.cli", "demo"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(short_folder), "TMPDIR": str(short_folder)},
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert [scene for scene in SCENES if scene not in done.stdout] == []
    assert "FLUSHALL" in done.stdout
    assert "Summary" in done.stdout
    assert "What to try next" in done.stdout
    assert done.stderr == ""
    assert list(short_folder.iterdir()) == []
    assert processes_of(short_folder) == {}
