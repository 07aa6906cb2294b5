"""The README's first use, typed as it stands there: the shell block on one's own database, then the Python program."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.services import free_port
from tests.waiting import eventually

README = (ROOT / "README.md").read_text("utf-8")
INSTALLING = r"^make install .*\n"  # it has been done, or no test would run
SHOP = """
    CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    INSERT INTO customer VALUES (7, 'Grace'), (8, 'Edsger');
"""


def block(title: str, language: str) -> str:
    found = re.search(rf"^## {title}\n.*?^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def environment(home: Path) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "HOME": str(home), "C_FORCE_ROOT": "1", "PYTHONUNBUFFERED": "1"}


@contextmanager
def typed(script: str, folder: Path) -> Iterator[None]:
    """A shell that runs the script; at the end, all that it started is asked to end, as Ctrl-C would."""
    said = folder / "said.txt"
    with said.open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-eu", "-c", f"trap wait TERM\n{script}"],  # it ends when all that it started has ended
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield
    except BaseException:
        print(said.read_text(errors="replace")[-4000:])
        raise
    finally:
        os.killpg(shell.pid, signal.SIGTERM)
        shell.wait(60)


def status(shop: Path) -> dict[str, Any]:
    """Empty while there is no replica yet."""
    asking = ["backhaul", "status", "--home", str(shop), "--json"]
    done = subprocess.run(asking, env=environment(shop.parent), capture_output=True, check=False)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


@pytest.mark.slow
def test_ten_lines_put_a_database_of_ones_own_under_sync(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as app:
        app.executescript(SHOP)
    app.close()
    port = str(free_port())
    lines = re.sub(INSTALLING, "", block("Use it on your own database", "sh"), flags=re.MULTILINE)
    script = lines.replace("8765", port).replace("serve --data server &", f"serve --data server --port {port} &")
    shop = tmp_path / "shop"
    with typed(script, tmp_path):
        eventually(lambda: status(shop).get("workers"), 60, "the workers are there", pause=0.3)
        program = subprocess.run(
            [sys.executable, "-c", block("Use it on your own database", "python")],
            cwd=shop,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
        assert program.returncode == 0, program.stderr
        assert "changes wait" in program.stdout
        eventually(lambda: status(shop)["pending"] == 0, 30, "everything is on the server", pause=0.3)
        verified = subprocess.run(["backhaul", "verify"], cwd=shop, env=environment(shop), check=False)
        assert verified.returncode == 0
