"""On which line of a TOML file a key stands: the parser that comes with Python forgets it, and people look for it.

Only what is needed to find a key again in text that the parser has already accepted: headers, keys at the start of a
line, and strings over several lines, in which nothing is a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

PART = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
DOTTED = rf"{PART}(?:\s*\.\s*{PART})*"
HEADER = re.compile(rf"\s*\[\[?\s*({DOTTED})\s*\]\]?\s*(?:#.*)?$")
KEY = re.compile(rf"\s*({DOTTED})\s*=")
FENCE = re.compile(r"\"\"\"|'''")


def line_of(text: str, path: Sequence[str | int]) -> int | None:
    """The line (from 1) of a key, or of the nearest thing around it that is written down; None if nothing is."""
    lines = {at: line for line, at in reversed(list(_places(text)))}
    for length in range(len(path), 0, -1):
        line = lines.get(tuple(str(part) for part in path[:length]))
        if line is not None:
            return line
    return None


def _places(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    table: tuple[str, ...] = ()
    for number, line in _outside_of_strings(text):
        if header := HEADER.match(line):
            table = _parts(header[1])
            yield number, table
        elif key := KEY.match(line):
            yield number, table + _parts(key[1])


def _outside_of_strings(text: str) -> Iterator[tuple[int, str]]:
    fence: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if fence is None:
            yield number, line
        for mark in FENCE.findall(line):
            fence = mark if fence is None else None if mark == fence else fence


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(PART, dotted))
