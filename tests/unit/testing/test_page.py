"""docs/testing.md, typed as it stands there: its files in a folder, and pytest."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "testing.md").read_text("utf-8")


def test_the_pages_own_tests_pass(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python file=(\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert {name for name, _ in blocks} == {"conftest.py", "reports.py", "test_reports.py"}
    assert len(blocks) == PAGE.count("```python")
    for name, text in blocks:
        (tmp_path / name).write_text(text, "utf-8")
    asked = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(tmp_path)]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_the_page_names_every_part_of_the_harness() -> None:
    from backhaul.testing import Harness

    public = {name for name in vars(Harness) if not name.startswith("_")} - {"close", "now"}
    assert {name for name in public if f"`{name}" not in PAGE} == set()
