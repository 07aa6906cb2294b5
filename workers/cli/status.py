"""backhaul status: how far this replica is, and what works for it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import typer
from sqlalchemy import Connection

from backhaul.client import Status, read_status
from backhaul.clock import iso, offset_said
from backhaul.replica import tables
from backhaul.work.constraints import judge
from backhaul.work.roster import Worker
from config.queues import declared
from workers.checks import LARGE_OFFSET_MS
from workers.cli.here import Here, live_workers, opened
from workers.cli.options import AsJson, Home
from workers.cli.output import ago, make_table, say_json, say_table, span


def add_to(program: typer.Typer) -> None:
    program.command()(status)


def status(*, home: Home = None, as_json: AsJson = False) -> None:
    """What waits, what is parked, when it last went through, which queues are open, and who works."""
    with opened(home) as here:
        known, around = read_status(here.database, here.now), _around(here)
        if as_json:
            say_json(asdict(known) | around)
        else:
            _say(here, known, around)


def _around(here: Here) -> dict[str, Any]:
    now = here.now
    with here.database.reading() as connection:
        workers = list(live_workers(connection, now))
        tracked = tables.all_tracked(connection)
        return {
            "queues": _queues(here, connection, workers),
            "workers": [_worker(worker) for worker in workers],
            "altered": tables.altered(connection, tracked),
            "backfill": {
                "tables_waiting": [one.table.name for one in tracked if one.backfill == "pending"],
                "rows_sent": sum(one.backfill_rows for one in tracked),
            },
        }


def _queues(here: Here, connection: Connection, workers: list[Worker]) -> list[dict[str, Any]]:
    conditions, labels = here.conditions(connection)
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
    waiting = f", the oldest for {span(known.oldest_pending_seconds)}" if known.pending else ""
    refused = f"{known.parked} parked; {known.conflicts} conflicts; {known.aside} of the server's set aside"
    print(f"changes   {known.pending} pending{waiting}; {refused}")
    if around["backfill"]["tables_waiting"]:
        sent = around["backfill"]["rows_sent"]
        print(f"backfill  {sent} rows taken up; still to come: {', '.join(around['backfill']['tables_waiting'])}")
    if around["altered"]:
        print(f"altered   {', '.join(around['altered'])}: run backhaul init to renew what captures their changes")
    if known.held_until is not None:
        print(f"held      until {iso(known.held_until)}: {known.held_because}")
    print(f"last      push {ago(known.last_push_at, now)}, pull {ago(known.last_pull_at, now)}")
    if abs(known.clock_offset_ms) > LARGE_OFFSET_MS:
        said = offset_said(known.clock_offset_ms)
        print(f"clock     this machine's is {said}, as the server sees it; changes are stamped by the server's")
    print(f"media     {_counted(known.media)}")
    print(f"work      {_counted(known.work)}")
    _say_queues(around["queues"])
    for worker in around["workers"]:
        print(f"worker {worker['name']} ({', '.join(worker['queues'])}), heard of {ago(worker['seen_at'], now)}")
    if not around["workers"]:
        print("no worker is running: backhaul up")


def _say_queues(queues: list[dict[str, Any]]) -> None:
    table = make_table("queue", "open while", "is", "because")
    for queue in queues:
        table.add_row(
            queue["name"], ", ".join(queue["tags"]), "open" if queue["open"] else "closed", queue["reason"] or "-"
        )
    say_table(table)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in counts.items() if number) or "none"
