"""What the tests start as a process is as it would be in a Python of its own."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests import commands


def test_a_process_has_the_time_zone_of_its_environment(tmp_path: Path) -> None:
    (tmp_path / "said.py").write_text("import time\nprint(time.strftime('%z', time.localtime(0)))\n")
    for zone, said in (("UTC-9", "+0900"), ("UTC+3", "-0300")):
        with tempfile.TemporaryFile() as out:
            environment = {**os.environ, "TZ": zone}
            process = commands.Process("said", [], folder=tmp_path, environment=environment, out=out, err=out)
            assert process.wait(commands.LIMIT_SECONDS) == 0
            out.seek(0)
            assert out.read().decode().strip() == said
