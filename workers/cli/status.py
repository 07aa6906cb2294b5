"""backhaul status: how far this replica is, and what works for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from backhaul.client import Status, read_status
from backhaul.clock import iso, offset_said
from backhaul.remotes.pace import Pace
from backhaul.replica import tables
from backhaul.work.budget import budgeted, bytes_said
from backhaul.work.conditions import Condition
from backhaul.work.placing import judge
from backhaul.work.roster import Worker
from config.machine import node_of
from config.queues import declared
from workers.checks import LARGE_OFFSET_MS
from workers.cli.here import Here, live_workers, opened
from workers.cli.nodes import nodes, say_nodes
from workers.cli.options import AsJson, Home
from workers.cli.output import ago, make_table, say_json, say_table, span
from workers.cli.pause import paused_shown


def add_to(program: typer.Typer) -> None:
    program.command()(status)


def status(
    *,
    home: Home = None,
    with_nodes: Annotated[
        bool, typer.Option("--nodes", help="Each machine instead: its labels, conditions, workers and queues.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What waits, what is parked, when it last went through, which queues are open, and who works."""
    with opened(home) as here:
        if with_nodes:
            found = nodes(here)
            return say_json({"nodes": found}) if as_json else say_nodes(found, here.now)
        known, around = read_status(here.database, here.now), _around(here)
        if as_json:
            say_json(asdict(known) | around)
        else:
            _say(here, known, around)
        return None


def _around(here: Here) -> dict[str, Any]:
    now = here.now
    with here.database.reading() as connection:
        workers = list(live_workers(connection, now, here.settings.node))
        tracked = tables.all_tracked(connection)
        conditions, labels = here.conditions(connection)
        paused = conditions["not_paused"]
        spent = budgeted(connection, now, node_of(here.settings), conditions)
        return {
            "budget": asdict(spent),
            "node": here.settings.node,
            "paused": paused_shown(None if paused.value else paused),
            "queues": _queues(here, conditions, labels, workers),
            "workers": [_worker(worker) for worker in workers],
            "altered": tables.altered(connection, tracked),
            "backfill": {
                "tables_waiting": [one.table.name for one in tracked if one.backfill == "pending"],
                "rows_sent": sum(one.backfill_rows for one in tracked),
            },
        }


def _queues(
    here: Here, conditions: Mapping[str, Condition], labels: frozenset[str], workers: list[Worker]
) -> list[dict[str, Any]]:
    return [
        {"name": queue.name, "tags": sorted(queue.tags)}
        | _state(queue.name, judge(queue.tags, conditions, labels), workers)
        for queue in declared(here.settings)
    ]


def _state(name: str, verdict: Any, workers: list[Worker]) -> dict[str, Any]:
    """Open where its conditions hold. A worker may know more (its own environment), or not know it yet."""
    served = [state for state in (worker.serves(name) for worker in workers) if state is not None]
    if not verdict.open:
        return {"open": False, "reason": verdict.reason, "workers": len(served)}
    if not served:
        return {"open": True, "reason": "no live worker serves it", "workers": 0}
    opened_by = [state for state in served if state.open]
    reason = "" if opened_by else served[0].reason
    return {"open": bool(opened_by), "reason": reason, "workers": len(served)}


def _worker(worker: Worker) -> dict[str, Any]:
    return {
        "name": worker.name,
        "pid": worker.pid,
        "started_at": worker.started_at,
        "seen_at": worker.seen_at,
        "queues": [state.name for state in worker.queues],
    }


def _say(here: Here, known: Status, around: dict[str, Any]) -> None:
    now = here.now
    print(f"replica {known.replica} of scope {known.scope!r} at {known.remote}, position {known.position}")
    waiting = f", the oldest for {span(known.oldest_pending_seconds)}" if known.pending > known.held else ""
    waiting += f", {known.held} of them held for their files" if known.held else ""
    refused = f"{known.parked} parked; {known.conflicts} conflicts; {known.aside} of the server's set aside"
    print(f"changes   {known.pending} pending{waiting}; {refused}")
    if around["backfill"]["tables_waiting"]:
        sent = around["backfill"]["rows_sent"]
        print(f"backfill  {sent} rows taken up; still to come: {', '.join(around['backfill']['tables_waiting'])}")
    if around["altered"]:
        print(f"altered   {', '.join(around['altered'])}: run backhaul init to renew what captures their changes")
    if known.held_until is not None:
        print(f"held      until {iso(known.held_until)}: {known.held_because}")
    if around["paused"]["paused"]:
        until = iso(around["paused"]["until"])
        print(f"paused    on {around['node']}{f' until {until}' if until else ''}: backhaul resume")
    print(f"last      push {ago(known.last_push_at, now)}, pull {ago(known.last_pull_at, now)}")
    if abs(known.clock_offset_ms) > LARGE_OFFSET_MS:
        said = offset_said(known.clock_offset_ms)
        print(f"clock     this machine's is {said}, as the server sees it; changes are stamped by the server's")
    for one in known.pace:
        print(f"pace      {_paced(one)}, {ago(one.decided_at, now)}: {one.reason}")
    print(f"media     {_counted(known.media)}")
    print(f"work      {_counted(known.work)}")
    for line in _budget(around["budget"]):
        print(f"budget    {line}")
    _say_queues(around["queues"])
    for worker in around["workers"]:
        print(f"worker {worker['name']} ({', '.join(worker['queues'])}), heard of {ago(worker['seen_at'], now)}")
    if not around["workers"]:
        print("no worker is running: backhaul up")


def _budget(budget: dict[str, Any]) -> list[str]:
    """A line for all metered links together, and one for each kind; of those that are bounded."""
    bounded = {"all metered links": budget} | {f"{kind} links": one for kind, one in budget["networks"].items()}
    lines = [f"{said} over {links}" for links, one in bounded.items() if (said := _allowed(one))]
    if lines:
        again = f"; more from {iso(budget['again_at'])} on" if budget["again_at"] is not None else ""
        link = f"the link is {budget['network']}" if budget["network"] else "the link costs nothing now"
        lines[-1] += f" ({link}){again}"
    return lines


def _allowed(allowance: dict[str, Any]) -> str:
    return ", ".join(
        f"{bytes_said(allowance[f'spent_{span_}'])} of {bytes_said(allowance[span_])} {said}"
        for span_, said in (("day", "today"), ("month", "this month"))
        if allowance[span_] is not None
    )


def _paced(pace: Pace) -> str:
    if pace.dial == "interval":
        value, before, usual = (span(one / 1000) for one in (pace.value, pace.before, pace.usual))
        return f"{pace.direction} every {value} (was {before}, usual {usual})"
    unit = f"{pace.dial} in use" if pace.dial == "lanes" else f"{pace.dial} at once"
    return f"{pace.direction} {pace.value:,} {unit} (was {pace.before:,}, usual {pace.usual:,})"


def _say_queues(queues: list[dict[str, Any]]) -> None:
    table = make_table("queue", "open while", "is", "because")
    for queue in queues:
        table.add_row(
            queue["name"], ", ".join(queue["tags"]), "open" if queue["open"] else "closed", queue["reason"] or "-"
        )
    say_table(table)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in counts.items() if number) or "none"
