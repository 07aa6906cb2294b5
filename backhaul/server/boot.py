"""Since when this machine runs: what a process has written, and has not waited for the disk with, outlives that process
until the machine starts anew."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")  # Linux; of the machine, not of the container


def boot_id() -> str:
    """Another one after each start; "" where none can be had."""
    with suppress(OSError):
        return BOOT.read_text().strip()
    return ""
