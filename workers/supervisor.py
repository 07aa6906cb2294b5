"""The supervisor: starts processes, starts again what dies, and leaves nothing running.

Each process leads a group of its own, with its output in a file of its own: Ctrl-C in a terminal reaches the
supervisor alone, which then ends the others in order. See warden.py for what happens when the supervisor is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0  # seconds before a dead process is started again: doubled, up to
SETTLED_SECONDS = 20.0  # who lived that long has not died of its start
GRACE_SECONDS = 10.0
LOOK_SECONDS = 0.05


@dataclass(kw_only=True)
class Child:
    """A process that shall run. env: beside the environment of ours."""

    name: str
    command: Sequence[str]
    folder: Path
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0  # of the monotonic clock
    start_again_at: float = 0.0
    pause: float = FIRST_PAUSE
    starts: int = 0

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None


class Supervisor:
    """died: is told of every child that has ended by itself, with its exit status. lock: for the warden to hold."""

    def __init__(self, died: Callable[[Child, int], None], *, lock: int | None = None) -> None:
        self.children: list[Child] = []
        self._died = died
        self._warden = subprocess.Popen(
            [sys.executable, "-m", "workers.warden"],
            stdin=subprocess.PIPE,
            cwd="/",
            pass_fds=() if lock is None else (lock,),
            start_new_session=True,
        )

    def start(self, child: Child) -> None:
        if child not in self.children:
            self.children.append(child)
        child.log.parent.mkdir(parents=True, exist_ok=True)
        with child.log.open("ab") as log:
            child.process = self._opened(child, log)
        child.started_at = time.monotonic()
        child.starts += 1
        self.tell_warden(f"start {child.process.pid}")

    def look(self) -> None:
        """Start again what has died, each after its pause."""
        for child in self.children:
            if child.process is None:
                if time.monotonic() >= child.start_again_at:
                    self.start(child)
            elif child.process.poll() is not None:
                self._bury(child)

    def stop(self, children: Sequence[Child] | None = None) -> None:
        """Ask them (default: all) to end, and after a grace make them."""
        ending = [child for child in children or self.children if child.process is not None]
        for child in ending:
            _terminate(child)
        deadline = time.monotonic() + GRACE_SECONDS
        for child in ending:
            assert child.process is not None
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
            self._sweep(child)
        self.children = [child for child in self.children if child not in ending]

    def close(self) -> None:
        """Everything has ended: the warden may go."""
        self.tell_warden("done")
        with suppress(BrokenPipeError):
            self._pipe.close()
        self._warden.wait()

    def tell_warden(self, line: str) -> None:
        with suppress(BrokenPipeError):
            self._pipe.write(f"{line}\n".encode())
            self._pipe.flush()

    @property
    def _pipe(self) -> IO[bytes]:
        assert self._warden.stdin is not None
        return self._warden.stdin

    def _opened(self, child: Child, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            child.command,
            cwd=child.folder,
            env={**os.environ, **child.env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def _bury(self, child: Child) -> None:
        assert child.process is not None
        status = child.process.returncode
        lived = time.monotonic() - child.started_at
        child.pause = FIRST_PAUSE if lived > SETTLED_SECONDS else min(child.pause * 2, LONGEST_PAUSE)
        child.start_again_at = time.monotonic() + child.pause
        self._sweep(child)
        self._died(child, status)

    def _sweep(self, child: Child) -> None:
        """What is left of its group."""
        assert child.process is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.process.pid, signal.SIGKILL)
        child.process.wait()
        self.tell_warden(f"end {child.process.pid}")
        child.process = None


def _terminate(child: Child) -> None:
    """Its leader only: a worker ends its own children, once they have settled what they run."""
    assert child.process is not None
    with suppress(ProcessLookupError):
        os.kill(child.process.pid, signal.SIGTERM)
