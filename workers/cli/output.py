"""How a command speaks: its answer on stdout, errors as `error:` and `hint:` on stderr; all of it as JSON if asked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import msgspec

from backhaul.errors import BackhaulError

if TYPE_CHECKING:
    from rich.table import Table


PIPED_WIDTH = 200  # what reads a pipe should not meet an id cut in two


def complain(error: BackhaulError, *, as_json: bool) -> int:
    """Says what is wrong and what to type; returns the exit status."""
    if as_json:
        say_json({"error": {"code": error.code, "message": str(error), "hint": error.hint}})
    else:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
    return error.exit_status


def say_json(value: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode(), flush=True)


def say_table(table: Table) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, markup=False, highlight=False).print(table)


def make_table(*columns: str, title: str | None = None) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def span(seconds: float | None) -> str:
    """A length of time as people say it."""
    if seconds is None:
        return "-"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def ago(milliseconds: int | None, now: int) -> str:
    return "never" if milliseconds is None else f"{span(max(0, now - milliseconds) / 1000)} ago"


def size(count: int) -> str:
    """Bytes as people say them."""
    number = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
