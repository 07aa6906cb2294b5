"""Worker functions and their names: also of a module that is run as a program, and imported by its workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
from backhaul.work import OneTimeWork, worker

@worker
def report(context):
    pass

@worker("named")
def other(context):
    pass

if __name__ == "__main__":
    import {module}
    print([OneTimeWork(one).request.task for one in (report, other, {module}.report, {module}.other)])
"""


@pytest.mark.parametrize(
    ("module", "started"), [("nightly", ["nightly.py"]), ("shop.nightly", ["-m", "shop.nightly"])], ids=["file", "-m"]
)
def test_a_module_that_is_run_as_a_program_names_its_functions_as_the_workers_do(
    tmp_path: Path, module: str, started: list[str]
) -> None:
    file = tmp_path / f"{module.replace('.', '/')}.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(MODULE.format(module=module))
    done = subprocess.run([sys.executable, *started], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{[f'{module}.report', 'named'] * 2}\n"
