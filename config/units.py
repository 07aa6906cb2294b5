"""Durations and sizes as people write them: "15m" is 900,000 milliseconds, "4MiB" is 4,194,304 bytes."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
WRITTEN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


def duration_ms(written: Any) -> int:
    """Milliseconds of "250ms", "30s", "1.5m", "12h" or "7d". Raises ValueError for anything else."""
    return _measured(written, MILLISECONDS, 'not a duration; write it like "30s", "15m" or "12h"')


def size_bytes(written: Any) -> int:
    """Bytes of "512KiB", "4MiB" or "1GB". Raises ValueError for anything else."""
    return _measured(written, BYTES, 'not a size; write it like "512KiB" or "4MiB"')


def _measured(written: Any, units: dict[str, int], otherwise: str) -> int:
    match = WRITTEN.fullmatch(written) if isinstance(written, str) else None
    if match is None or match[2] not in units:
        raise ValueError(otherwise)
    return round(float(match[1]) * units[match[2]])


Duration = Annotated[int, BeforeValidator(duration_ms)]  # milliseconds
Size = Annotated[int, BeforeValidator(size_bytes)]  # bytes
