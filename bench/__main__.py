"""`make bench`: measure everything, print it, and write docs/performance.md. Ratios are of one run, on this machine."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from pathlib import Path

from bench import beside, capture, commit, gate, lanes, media, probes, pull, push, upload, work

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
    data = [*_capture(), *_commit(), _push(), _beside(), *_lanes(), _pull()]
    rows = [*data, _upload(), *_media(), *_work(), *_gate(), *_probes()]
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


def _beside() -> tuple[str, str, str]:
    alone, hanging = beside.measure()
    ratios = [other / one for one, other in zip(alone, hanging, strict=True)]
    return "10,000 changes through a real worker, while files hang / without files", "at least 0.95", _spread(ratios)


def _lanes() -> list[tuple[str, str, str]]:
    rows = []
    for round_trip in lanes.ROUND_TRIPS:
        found = lanes.measure(round_trip)
        ratios = [four / one for one, four in zip(found[1], found[4], strict=True)]
        line = f"over a line of {round_trip:.0f} ms there and back" if round_trip else "on this machine alone"
        what = f"40,000 changes of one PostgreSQL outbox, {line}: four workers / one"
        rows.append((what, "at least 1.5", f"{_spread(ratios)}; one: {_range(found[1])} a second"))
    return rows


def _pull() -> tuple[str, str, str]:
    return "10,000 records into an empty replica, over HTTP: records a second", "", _range(pull.measure())


def _upload() -> tuple[str, str, str]:
    idle, most = upload.measure()
    said = f"{most - idle:+.0f} MiB ({idle:.0f} idle, {most:.0f} at most)"
    return "memory of the worker that uploads 1 GiB, above idle", "at most 16 MiB", said


def _media() -> list[tuple[str, str, str]]:
    """Nothing where the reference pair is not installed (see media.py)."""
    bars = {
        "small": ("1,000 files of 4 KiB through a real worker", "at least 3 times as fast as one tus upload each"),
        "large": ("one file of 256 MiB in chunks of 4 MiB through a real worker", "at least as fast"),
    }
    rows = []
    for what, pair in (media.measure() or {}).items():
        measured, bar = bars[what]
        seconds = f"{statistics.median(pair.ours):.1f} s, theirs {statistics.median(pair.theirs):.1f} s"
        line = f"{measured}: how many times as fast as tus-js-client with @tus/server"
        rows.append((line, bar, f"{_spread(pair.ratios)}; {seconds}"))
    return rows


def _work() -> list[tuple[str, str, str]]:
    idle = work.idle()
    rows = [
        (
            "10,000 works enqueued in one transaction: works a second",
            "at least 20,000",
            _range(work.enqueued_per_second()),
        ),
        *(
            (
                f"what claim to settle adds to a bare Celery task, {how}: milliseconds, median",
                "at most 3",
                f"{work.added(together):.1f}",
            )
            for how, together in (("the worker asleep in between", 1), (f"{work.BURST} in a row", work.BURST))
        ),
        *(
            (
                "Beat rings for what is due, among a million finished works and 100,000 waiting, half of them in a "
                f"closed queue, without the broker, {kind}: milliseconds",
                "indexed queries",
                _spread(work.dispatch(kind)),
            )
            for kind in work.KINDS
        ),
    ]
    for who, (share, woken) in idle.items():
        line = f"an idle {who}, all its threads and processes: share of a core, wakings a second"
        rows.append((line, "under 1 %, at most 1.0", f"{share:.1%}, {woken:.1f}"))
    return rows


def _gate() -> list[tuple[str, str, str]]:
    rows = [
        (
            "the threads of an idle gate, D-Bus and all probes among them: share of a core",
            "under 0.2 %",
            f"{gate.idle():.2%}",
        )
    ]
    for pool in gate.POOLS:
        what = f"from a signal of D-Bus to the queue let go of or taken up, {gate.FLIPS} flips, {pool}: milliseconds"
        rows.append((what, "under 100", _spread(gate.latencies(pool))))
    return rows


def _probes() -> list[tuple[str, str, str]]:
    return [
        ("the probes of an idle machine, over 20 s: share of a core", "under 0.2 %", f"{probes.idle():.3%}"),
        ("a signal of D-Bus until the worker is woken: milliseconds", "", _spread(probes.signals())),
    ]


def _range(figures: list[float]) -> str:
    return f"{statistics.median(figures):,.0f} ({min(figures):,.0f} to {max(figures):,.0f})"


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
