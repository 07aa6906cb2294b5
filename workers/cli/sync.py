"""backhaul push, pull, sync, reconcile: on demand."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from backhaul.client import read_status
from workers.cli.asking import Outcome, ask
from workers.cli.here import Here, opened
from workers.cli.options import AsJson, Home, Timeout, Wait
from workers.cli.output import say_json

PATIENCE = 60.0


def add_to(program: typer.Typer) -> None:
    for command in (push, pull, sync, reconcile):
        program.command()(command)


def push(*, home: Home = None, wait: Wait = False, timeout: Timeout = PATIENCE, as_json: AsJson = False) -> None:
    """Send what waits, now. Without a running worker it is done here."""
    _on_demand(home, ["push"], timeout if wait else None, as_json)


def pull(*, home: Home = None, wait: Wait = False, timeout: Timeout = PATIENCE, as_json: AsJson = False) -> None:
    """Fetch what the others changed, now."""
    _on_demand(home, ["pull"], timeout if wait else None, as_json)


def sync(*, home: Home = None, wait: Wait = False, timeout: Timeout = PATIENCE, as_json: AsJson = False) -> None:
    """Push, then pull; with --wait, nothing that was written before is pending when it is done."""
    _on_demand(home, ["push", "pull"], timeout if wait else None, as_json)


def reconcile(*, home: Home = None, wait: Wait = False, timeout: Timeout = PATIENCE, as_json: AsJson = False) -> None:
    """Pull, push, and hold both sides against each other."""
    _on_demand(home, ["reconcile"], timeout if wait else None, as_json)


def _on_demand(home: Path | None, names: Sequence[str], wait_seconds: float | None, as_json: bool) -> None:
    with opened(home) as here:
        outcomes = list(_asked(here, names, wait_seconds))
        if as_json:
            _say_json(here, outcomes)
        else:
            _say(here, outcomes)
    raise typer.Exit(max(outcome.exit_status for outcome in outcomes))


def _asked(here: Here, names: Sequence[str], wait_seconds: float | None) -> Iterator[Outcome]:
    """One after the other; what comes after one that is not done is not begun."""
    deadline = None if wait_seconds is None else time.monotonic() + wait_seconds
    for name in names:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        with _watched(name) as watch:
            outcome = ask(here, name, wait_seconds=left, watch=watch)
        yield outcome
        if outcome.exit_status:
            return


@contextmanager
def _watched(name: str) -> Iterator[Callable[[dict[str, Any] | None], None]]:
    """A progress bar, for a person who looks."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)

        def watch(progress: dict[str, Any] | None) -> None:
            if progress is not None:
                bar.update(task, completed=progress.get("done", 0), total=progress.get("total"))

        yield watch


def _say(here: Here, outcomes: Sequence[Outcome]) -> None:
    if any(outcome.ran_here for outcome in outcomes):
        print("no live worker serves the queue, so it ran in this process (`backhaul up` starts the workers)")
    for outcome in outcomes:
        print(outcome.said, file=sys.stderr if outcome.exit_status else sys.stdout)
    status = read_status(here.database, here.now)
    print(f"{status.pending} pending, {status.parked} parked, position {status.position}")


def _say_json(here: Here, outcomes: Sequence[Outcome]) -> None:
    status = read_status(here.database, here.now)
    say_json(
        {
            "outcomes": outcomes,
            "done": all(outcome.state == "done" for outcome in outcomes),
            "pending": status.pending,
            "parked": status.parked,
            "position": status.position,
        }
    )
