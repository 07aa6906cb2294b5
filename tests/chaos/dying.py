"""Processes that die on the spot, at a crash point: `os._exit`, so that no handler and no `finally` of theirs runs.

One helper process imports everything once and forks for each death; it is spoken to in lines of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from tests.chaos.crash_points import CrashPoint
from tests.chaos.journeys import run

DEATH = 9


class Reaper:
    """The helper process, seen from the test."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def die(self, point: CrashPoint, job: dict[str, Any]) -> int:
        """Run the journey until it dies at the point; the exit status of its process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"journey": point.journey, "step": point.step, "when": point.when, "call": point.call, "job": job}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


@contextmanager
def reaper() -> Iterator[Reaper]:
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Reaper(process)
        assert process.stdin is not None
        process.stdin.close()


def kill_at(step: str, when: str, call: int) -> None:
    """From now on, this process dies before or after that call of the step."""
    module, _, path = step.partition(":")
    *holders, name = path.split(".")
    holder: Any = import_module(module)
    for part in holders:
        holder = getattr(holder, part)
    original, calls = getattr(holder, name), 0

    def deadly(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            os._exit(DEATH)
        answer = original(*arguments, **options)
        if calls == call:
            os._exit(DEATH)
        return answer

    setattr(holder, name, deadly)


def _serve() -> None:
    said = os.dup(1)
    os.dup2(2, 1)  # what a journey says does not get between our answers
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _run_once(order)
        _, status = os.waitpid(child, 0)
        os.write(said, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _run_once(order: dict[str, Any]) -> None:
    try:
        kill_at(order["step"], order["when"], order["call"])
        run(order["journey"], order["job"])
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)


if __name__ == "__main__":
    _serve()
