"""The locks of a replica's folder: one `up` at a time, and none before what the last one started has ended.

The first lock is `up`'s own and goes with its process, however that ends. The second is also held by the warden (see
warden.py), which after a kill -9 still has to end the others: the next `up` waits for that.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backhaul.errors import Misused

LOOK_SECONDS = 0.1
PATIENCE_SECONDS = 20.0


@contextmanager
def the_only_one(state: Path) -> Iterator[int]:
    """Yields the descriptor for the warden to inherit. Raises Misused when an `up` runs here."""
    with _opened(state / "up.lock") as own, _opened(state / "up.leftovers") as leftovers:
        if not _locked(own):
            pid = os.pread(own, 20, 0).decode("ascii", "replace").strip()
            raise Misused(
                f"backhaul up runs in {state.parent} already (process {pid})", hint=f"end that one: kill {pid}"
            )
        os.ftruncate(own, 0)
        os.pwrite(own, f"{os.getpid()}\n".encode(), 0)
        _wait_for(leftovers, state.parent)
        yield leftovers


@contextmanager
def _opened(file: Path) -> Iterator[int]:
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def _wait_for(handle: int, home: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not _locked(handle):
        if time.monotonic() > deadline:
            raise Misused(f"what an earlier backhaul up in {home} has started does not end", hint="see .backhaul/logs")
        time.sleep(LOOK_SECONDS)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
