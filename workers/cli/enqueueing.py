"""backhaul work enqueue: a worker function, or a plain Celery task, as work, from the command line."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, cast

import msgspec
import typer

from backhaul.errors import Misused
from backhaul.work import Constraints, OneTimeWork, PeriodicWork
from backhaul.work.works import Works
from config.units import duration_ms
from workers.cli.here import Here, opened
from workers.cli.options import AsJson, Home
from workers.cli.output import say_json

Worker = Annotated[str, typer.Argument(metavar="NAME", help="A worker function's name, as in shop.reports.daily.")]
Input = Annotated[str | None, typer.Option("--input", metavar="JSON", help="An object of at most 10 KiB.")]
Plain = Annotated[bool, typer.Option("--plain", help='A plain Celery task; input: {"args": [...], "kwargs": {...}}.')]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="To find and cancel it by. Repeatable.")]
Delay = Annotated[str | None, typer.Option("--delay", metavar="DURATION", help='Before the first run: "10m".')]
Every = Annotated[str | None, typer.Option("--every", metavar="DURATION", help='Periodic: "12h"; needs --name.')]
Flex = Annotated[str | None, typer.Option("--flex", metavar="DURATION", help="The end of the first period.")]
Name = Annotated[str | None, typer.Option("--name", help="A unique name: see --policy.")]
Policy = Annotated[
    str | None,
    typer.Option(
        "--policy",
        help="keep (default), replace, append, append_or_replace; periodic: keep, update, cancel_and_reenqueue.",
    ),
]
Needs = Annotated[
    list[str] | None,
    typer.Option("--needs", metavar="WHAT", help="A network (unmetered), a condition (charging), a label (region:eu)."),
]
CONDITIONS = ("charging", "battery_not_low", "device_idle", "storage_not_low")
NETWORKS = ("connected", "unmetered", "not_roaming", "metered", "temporarily_unmetered")


def enqueue(
    worker: Worker,
    *,
    input_: Input = None,
    plain: Plain = False,
    tags: Tags = None,
    needs: Needs = None,
    delay: Delay = None,
    every: Every = None,
    flex: Flex = None,
    name: Name = None,
    policy: Policy = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Have it done in the background: once, or in each period."""
    asked: dict[str, Any] = {
        "input": _object(input_),
        "plain_task": plain,
        "tags": tags or [],
        "constraints": _constraints(needs or []),
        "initial_delay": _span("--delay", delay) or timedelta(0),
    }
    if policy is not None and name is None:
        raise Misused("a policy is of a name", hint="--name NAME --policy keep")
    with opened(home) as here:
        works = works_of(here)
        if every is not None:
            if name is None:
                raise Misused("periodic work needs a name, or there would be one more with each call", hint="--name N")
            asked |= {"every": _span("--every", every), "flex": _span("--flex", flex)}
            work = PeriodicWork(worker, **asked)
            receipt = works.enqueue_unique_periodic(name, cast(Any, policy or "keep"), work)
        elif name is not None:
            receipt = works.enqueue_unique(name, cast(Any, policy or "keep"), OneTimeWork(worker, **asked))
        else:
            receipt = works.enqueue(OneTimeWork(worker, **asked))
    if as_json:
        return say_json({"ids": receipt.ids, "kept": receipt.kept})
    for one in receipt.ids:
        print(one)
    return print(f"kept what was there under the name {name}: {receipt.kept}") if receipt.kept else None


def works_of(here: Here) -> Works:
    """The host's work, as a command has it: in transactions of its own."""
    return Works(here.database, here.bell, here.clock, after_commit=lambda *_: False)


def _object(written: str | None) -> Any:
    try:
        return {} if written is None else msgspec.json.decode(written)
    except msgspec.MsgspecError as error:
        raise Misused(f"the input is no JSON: {error}", hint="""--input '{"year": 2026}'""") from None


def _span(option: str, written: str | None) -> timedelta | None:
    try:
        return None if written is None else timedelta(milliseconds=duration_ms(written))
    except ValueError as error:
        raise Misused(f"{option} {written!r} is {error}", hint=f"{option} 10m") from None


def _constraints(needs: list[str]) -> Constraints:
    networks = [one for one in needs if one in NETWORKS]
    unknown = [one for one in needs if one not in (*NETWORKS, *CONDITIONS) and ":" not in one]
    if unknown:
        known = ", ".join((*NETWORKS, *CONDITIONS))
        raise Misused(f"nothing is known of {unknown[0]!r}", hint=f"one of {known}, or a label, as in region:eu")
    if len(networks) > 1:
        raise Misused(f"one network, and not {' and '.join(networks)}", hint="unmetered is connected, too")
    return Constraints(
        network=cast(Any, networks[0] if networks else "not_required"),
        labels=frozenset(one for one in needs if ":" in one),
        **cast(Any, {name: True for name in needs if name in CONDITIONS}),
    )
