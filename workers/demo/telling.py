"""How the demo is told: plain sentences as things happen, what the commands say, bars, and a table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from workers.cli.output import make_table


@dataclass(frozen=True)
class Scene:
    """One line of the summary."""

    title: str
    seconds: float
    outcome: str


class Telling:
    """quiet: only remembers the scenes."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(highlight=False, markup=False, quiet=quiet, soft_wrap=True)
        self._began = time.monotonic()
        self.scenes: list[Scene] = []

    @contextmanager
    def scene(self, title: str) -> Iterator[Callable[[str], None]]:
        """What is given to the callable stands in the summary."""
        self._console.print(f"\n{title}", style="bold")
        began, outcomes = time.monotonic(), [""]
        yield outcomes.append
        self.scenes.append(Scene(title, time.monotonic() - began, outcomes[-1]))

    def say(self, sentence: str) -> None:
        self._console.print(f"  {sentence}")

    def quote(self, command: str, answer: str) -> None:
        self._console.print(f"  $ {command}", style="cyan")
        for line in answer.strip("\n").splitlines():
            self._console.print(f"    {line.rstrip()}", style="dim")

    @contextmanager
    def bar(self, what: str, total: float) -> Iterator[Callable[[float], None]]:
        columns = (TextColumn("  {task.description:24}"), BarColumn(32), TextColumn("{task.percentage:3.0f} %"))
        with Progress(*columns, TimeElapsedColumn(), console=self._console) as progress:
            task = progress.add_task(what, total=total)
            yield lambda done: progress.update(task, completed=done)
            progress.update(task, completed=total)

    def summary(self) -> None:
        table = make_table("what happened", "took", "and so", title="\nSummary")
        for scene in self.scenes:
            table.add_row(scene.title, f"{scene.seconds:.1f} s", scene.outcome)
        table.add_row("all together", f"{time.monotonic() - self._began:.1f} s", "")
        self._console.print(table)
