"""Nodes: each machine that works for this replica, as its workers say it is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from backhaul.clock import iso
from backhaul.errors import Unknown
from backhaul.work import roster
from backhaul.work.conditions import SAID, Condition, effective, overrides
from backhaul.work.reading import is_stale
from backhaul.work.roster import Worker
from workers.cli.here import Here, is_alive
from workers.cli.output import ago, make_table, say_table, span

SHOWN_MS = 86_400_000  # a worker that was not heard of for longer is forgotten


def nodes(here: Here) -> list[dict[str, Any]]:
    """By name. What a node's workers say may differ for a second: its facts are those of the one heard of last."""
    now = here.now
    with here.database.reading() as connection:
        heard_of = roster.alive(connection, now, SHOWN_MS)
    own = here.settings.node
    return [_node(name, list(workers), now, own) for name, workers in groupby(heard_of, lambda worker: worker.node)]


def conditions_elsewhere(here: Here, node: str) -> list[Condition]:
    """Of another machine: as its workers saw it last, and what is said of it now. Raises Unknown."""
    with here.database.reading() as connection:
        said = overrides(connection, here.now, node)
    seen = seen_elsewhere(here, node)
    if not seen and not said:
        raise Unknown(f"no worker of a node {node!r} was heard of", hint="backhaul status --nodes lists them")
    return list({**seen, **said}.values())


def seen_elsewhere(here: Here, node: str) -> dict[str, Condition]:
    """What the workers of another machine see of it, without what was said in the database: that may have been taken
    back since they were heard of, so their probes count there. Empty when none was heard of."""
    with here.database.reading() as connection:
        heard_of = [worker for worker in roster.alive(connection, here.now, SHOWN_MS) if worker.node == node]
    if not heard_of:
        return {}
    latest = _latest(heard_of)
    probed = effective({}, {}, {}, readings=latest.readings, now=here.now)
    return {name: probed[name] if one.source in SAID else one for name, one in latest.conditions.items()}


def condition_shown(one: Condition, now: int) -> dict[str, Any]:
    """For JSON. answer: of the probe, `unknown` also where it is too old; None where there is none."""
    stale = one.read_at is not None and is_stale(one.read_at, now, one.good_for)
    return {
        "name": one.name,
        "on": one.value,
        "source": one.source,
        "by": one.by,
        "detail": one.detail,
        "since": one.since,
        "expires_at": one.expires_at,
        "node": one.node,
        "answer": "unknown" if stale else one.answer,
        "read_at": one.read_at,
        "age_seconds": None if one.read_at is None else max(0.0, (now - one.read_at) / 1000),
        "stale": stale,
    }


def say_nodes(found: Sequence[dict[str, Any]], now: int) -> None:
    for node in found:
        labels = f" ({', '.join(node['labels'])})" if node["labels"] else ""
        gone = "" if node["alive"] else ": none of its workers answers; what follows is what they said last"
        print(f"node {node['node']}{labels}, heard of {ago(node['seen_at'], now)}{gone}")
        say_conditions(node["conditions"])
        _say_workers(node["workers"], now)
    if not found:
        print("no worker was heard of: backhaul up")


def say_conditions(shown: Sequence[dict[str, Any]]) -> None:
    table = make_table("condition", "is", "says", "since", "until", "probe")
    for one in shown:
        for_all = " (all nodes)" if one["source"] in SAID and not one["node"] else ""
        says = Condition(**{name: one[name] for name in ("name", "source", "by", "detail")}, value=one["on"]).who
        until, since = iso(one["expires_at"]) or "-", iso(one["since"]) or "-"
        table.add_row(one["name"], "on" if one["on"] else "off", says + for_all, since, until, _probe(one))
    say_table(table)


def _probe(one: dict[str, Any]) -> str:
    if one["answer"] is None:
        return "-"
    old = ", too old" if one["stale"] else ""
    return f"{one['answer']} ({span(one['age_seconds'])} ago{old})"


def _say_workers(workers: Sequence[dict[str, Any]], now: int) -> None:
    table = make_table("worker", "heard of", "at once", "misrouted", "queue", "is", "since", "because")
    for worker in workers:
        alive = "" if worker["alive"] else ", gone"
        facts = [worker["name"], ago(worker["seen_at"], now) + alive, worker["concurrency"], worker["misrouted"]]
        for queue in worker["queues"] or [{"name": "-", "open": False, "since": None, "reason": "it serves none"}]:
            is_ = "open" if queue["open"] else "closed"
            table.add_row(*map(_cell, facts), queue["name"], is_, iso(queue["since"]) or "-", queue["reason"] or "-")
            facts = ["", "", "", ""]
    say_table(table)


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)


def _node(name: str, workers: list[Worker], now: int, own: str) -> dict[str, Any]:
    latest = _latest(workers)
    return {
        "node": name,
        "alive": any(is_alive(worker, now, own) for worker in workers),
        "seen_at": latest.seen_at,
        "labels": sorted(latest.labels),
        "conditions": [condition_shown(one, now) for one in latest.conditions.values()],
        "workers": [_worker(worker, now, own) for worker in workers],
    }


def _worker(worker: Worker, now: int, own: str) -> dict[str, Any]:
    return {
        "name": worker.name,
        "pid": worker.pid,
        "alive": is_alive(worker, now, own),
        "started_at": worker.started_at,
        "seen_at": worker.seen_at,
        "heartbeat_seconds": max(0.0, (now - worker.seen_at) / 1000),
        "concurrency": worker.concurrency,
        "misrouted": worker.misrouted,
        "queues": [
            {"name": state.name, "open": state.open, "since": state.since, "reason": state.reason}
            for state in worker.queues
        ],
    }


def _latest(workers: Sequence[Worker]) -> Worker:
    return max(workers, key=lambda worker: worker.seen_at)
