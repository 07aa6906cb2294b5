"""10,000 changes beside files that hang: the server takes each request for media, and never answers it.

As `push`, in turns with and without such files, by the same line. A ratio for each turn.
"""

from __future__ import annotations

import os
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit

from bench.field import Field, field, until
from bench.push import one_round

TURNS = 5
FILES = 20
RETRIES = """
[retry.upload]
initial = "1s"
most = "2s"
"""
PIECE = 256 * 2**10
SETTLED = 2.0  # seconds: what hangs is measured, not how the workers begin what will hang
CONDITION = "battery_not_low"  # data waits for it, and files do not: so they hang before data begins


class Line:
    """stuck: whether connections that ask for media are held, unanswered. held: how many are."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._to = (str(place.hostname), int(place.port or 0))
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        self.stuck = False
        self._held: list[socket.socket] = []
        threading.Thread(target=self._let_in, daemon=True).start()

    @property
    def held(self) -> int:
        return len(self._held)

    def release(self) -> None:
        self.stuck = False
        held, self._held = self._held, []
        for one in held:
            _end(one)

    def close(self) -> None:
        _end(self._door)
        self.release()

    def _let_in(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._door.accept()
                threading.Thread(target=self._carry_there, args=(near,), daemon=True).start()

    def _carry_there(self, near: socket.socket) -> None:
        far = socket.create_connection(self._to)
        threading.Thread(target=_carry, args=(far, near), daemon=True).start()
        with suppress(OSError):
            while said := near.recv(PIECE):
                if self.stuck and b" /v1/media" in said[:100]:
                    self._held.append(near)
                    return
                far.sendall(said)
        _end(near)
        _end(far)


def _carry(here: socket.socket, there: socket.socket) -> None:
    with suppress(OSError):
        while said := here.recv(PIECE):
            there.sendall(said)
    _end(here)
    _end(there)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


def measure() -> tuple[list[float], list[float]]:
    """Changes a second, one figure a turn: alone, and beside files that hang."""
    lines: list[Line] = []

    @contextmanager
    def through(url: str) -> Iterator[str]:
        with closing(Line(url)) as line:
            lines.append(line)
            yield line.url

    alone, beside = [], []
    with field(conditions=RETRIES, through=through) as made:
        settings = made.home / "backhaul.toml"
        sync = 'tags = ["connected", "' + CONDITION + '"]'
        settings.write_text(settings.read_text().replace('tags = ["connected"]', sync))
        made.backhaul("condition", "set", CONDITION, "off")
        with made.up():
            for turn in range(TURNS):
                alone.append(one_round(made, 2 * turn, condition=CONDITION))
                beside.append(_beside(made, lines[0], turn))
    return alone, beside


def _beside(made: Field, line: Line, turn: int) -> float:
    files = [made.home / f"{turn}-{number}.jpg" for number in range(FILES)]
    for file in files:
        file.write_bytes(os.urandom(1000))
    line.stuck = True
    made.backhaul("media", "put", *map(str, files))
    until(lambda: line.held > 0, 30, "files hang")
    time.sleep(SETTLED)
    found = one_round(made, 2 * turn + 1, condition=CONDITION)
    assert line.held > 0
    line.release()
    open_uploads = "SELECT count(*) FROM backhaul_upload WHERE state IN ('pending', 'sending')"
    until(lambda: made.one(open_uploads) == 0, 180, "the files are there", pause=0.1)
    return found


if __name__ == "__main__":
    alone, beside = measure()
    ratios = [other / one for one, other in zip(alone, beside, strict=True)]
    print(
        f"push beside files that hang / alone: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )
