"""Memory of a worker that uploads 1 GiB, above what it has when idle: the media worker and its children, sampled."""

from __future__ import annotations

import os
from pathlib import Path

from bench.field import Field, field, until

SIZE = 2**30
MIB = 2**20


def measure() -> tuple[float, float]:
    """MiB: resident when idle, and the most while uploading."""
    with field() as made, made.up():
        worker = made.one("SELECT pid FROM backhaul_worker WHERE name LIKE 'media@%'")
        idle = _resident(worker)
        film = made.home / "film.mp4"
        with film.open("wb") as file:
            file.write(os.urandom(MIB))
            file.truncate(SIZE)
        made.backhaul("media", "put", str(film))
        peak = [idle]
        until(lambda: _sampled(made, worker, peak), 300, "the film is on the server")
        return idle / MIB, max(peak) / MIB


def _sampled(made: Field, worker: int, peak: list[int]) -> bool:
    peak.append(_resident(worker))
    return made.one("SELECT count(*) FROM backhaul_upload WHERE state = 'done'") == 1


def _resident(pid: int) -> int:
    """Bytes: of a process and its children, shared pages shared out (PSS)."""
    total = 0
    for process in [pid, *_children(pid)]:
        for line in _read(f"/proc/{process}/smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def _children(pid: int) -> list[int]:
    found = [int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()]
    return found + [grandchild for child in found for grandchild in _children(child)]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""  # it has ended


if __name__ == "__main__":
    idle, most = measure()
    print(f"upload of 1 GiB: {idle:.0f} MiB idle, {most:.0f} MiB at most, {most - idle:+.0f}")
