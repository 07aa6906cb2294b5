"""`make bench`: measure everything, print it, and write docs/performance.md. Ratios are of one run, on this machine."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from pathlib import Path

from bench import capture, commit, pull, push, upload

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
HEAD = """# Performance

Made by `make bench` (see `bench/`): medians, with the least and the most of the rounds in brackets. Ratios compare two
things within one run, in turns; seconds of a shared machine are worth little by themselves.

Machine: {machine}

| what | must reach | measured |
|---|---|---|
"""


def main() -> None:
    argparse.ArgumentParser(prog="python -m bench", description=__doc__).parse_args()
    rows = [*_capture(), *_commit(), _push(), _pull(), _upload()]
    table = "".join(f"| {what} | {bar} | {found} |\n" for what, bar, found in rows)
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    PAGE.write_text(HEAD.format(machine=machine) + table + NOTES.read_text())
    print(table)


NOTES = Path(__file__).with_name("notes.md")


def _capture() -> list[tuple[str, str, str]]:
    return [
        (f"capture, ORM {what}s in commits of ten: CPU time with / without", "at most 1.2", _spread(ratios))
        for what, ratios in capture.measure().items()
    ]


def _commit() -> list[tuple[str, str, str]]:
    bars = {"broker up": "", "broker down": "at most twice as with the broker"}
    return [
        (f"one commit of one row, {case}: time with / without Backhaul", bars[case], _spread(ratios))
        for case, ratios in commit.measure().items()
    ]


def _push() -> tuple[str, str, str]:
    what = "10,000 changes, first claim to last ack, through a real worker: changes a second"
    return what, "at least 15,000", _range(push.measure())


def _pull() -> tuple[str, str, str]:
    return "10,000 records into an empty replica, over HTTP: records a second", "", _range(pull.measure())


def _upload() -> tuple[str, str, str]:
    idle, most = upload.measure()
    said = f"{most - idle:+.0f} MiB ({idle:.0f} idle, {most:.0f} at most)"
    return "memory of the worker that uploads 1 GiB, above idle", "at most 50 MiB", said


def _range(figures: list[float]) -> str:
    return f"{statistics.median(figures):,.0f} ({min(figures):,.0f} to {max(figures):,.0f})"


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
