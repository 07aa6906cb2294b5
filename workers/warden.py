"""The warden: ends what `up` has started when `up` cannot do it any more.

A process that is killed with -9 cleans up nothing. So `up` starts this one first, in a session of its own, and keeps a
pipe to it: on the pipe it says which process groups it has started, and the end of the pipe means that `up` is gone,
however that came. Then the groups are asked to end, and after a grace made to. A pipe and process groups are on every
Unix, and catch the children of the children; Linux' own PR_SET_PDEATHSIG is lost at the first fork of a child.

The warden inherits the lock of the folder and holds it until then, so that the next `up` waits until all is quiet.

    start PGID | end PGID | socket PATH | done
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

GRACE_SECONDS = 10.0
LOOK_SECONDS = 0.05


def watch(lines: Iterable[str]) -> None:
    """Returns at once after `done`; otherwise, when the lines end, ends what is left."""
    groups: set[int] = set()
    sockets: set[Path] = set()
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        if word == "done":
            return
        if word == "socket":
            sockets.add(Path(rest))
        elif word == "start":
            groups.add(int(rest))
        elif word == "end":
            groups.discard(int(rest))
    end_groups(groups)
    for path in sockets:
        shut_broker(path)


def end_groups(groups: Iterable[int], grace: float = GRACE_SECONDS) -> None:
    """The leader of each is asked first: a worker settles what it runs, and ends its own children."""
    left = set(groups)
    for leader in left:
        _send(os.kill, leader, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while left and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        left = {group for group in left if _exists(group)}
    for group in left:
        _send(os.killpg, group, signal.SIGKILL)


def shut_broker(path: Path) -> None:
    """The embedded redis-server, whichever process has started it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, suppress(OSError):
        connection.settimeout(2)
        connection.connect(str(path))
        connection.sendall(b"SHUTDOWN NOSAVE\r\n")
        connection.recv(100)


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group of zombies
        return False
    return True


def _send(kill: object, target: int, number: signal.Signals) -> None:
    assert callable(kill)
    with suppress(ProcessLookupError, PermissionError):
        kill(target, number)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    watch(sys.stdin)
