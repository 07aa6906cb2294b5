"""A worker, a beat and a command that import what they need by themselves, each with hashes of its own: a module that
is missing, or that imports what imports it, shows here. (The others are forked: tests/commands.py.)"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from backhaul.work import ledger
from tests import commands
from tests.crew import Crew


def test_what_a_command_enqueues_is_rung_for_and_run(tmp_path: Path) -> None:
    crew = Crew(tmp_path / "home", own_pythons=True)
    try:
        crew.worker(queues="sync")
        crew.beat()
        command = [sys.executable, "-m", commands.COMMANDS, "work", "enqueue", "note", "--input", '{"word": "told"}']
        subprocess.run(command, cwd=crew.home, env=os.environ | {"PYTHONPATH": str(commands.ROOT)}, check=True)
        with crew.database.reading() as connection:
            (work,) = ledger.query(connection, tags=["note"])
        crew.settled(work, timeout=20)
        assert crew.notes() == ["told one@crew"]
    finally:
        crew.end()
