"""-> ENQUEUED, or BLOCKED: new work, any number of it, in as many statements as there are tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select

from backhaul.errors import Misused
from backhaul.schema import work as table
from backhaul.statements import on_postgresql, run
from backhaul.work.constraints import FileTrigger
from backhaul.work.ledger import triggering
from backhaul.work.ledger.asking import among, by_name, existing
from backhaul.work.ledger.chaining import attach, born
from backhaul.work.ledger.holding import hold_for_writing, hold_word
from backhaul.work.ledger.timing import expiry, first_due
from backhaul.work.request import WorkRequest
from backhaul.work.row import FINISHED, NEVER, State, Work

HOUR_MS = 3_600_000
AT_ONCE = 10_000
MANY = 100
COLUMNS = (
    *("id", "name", "state", "generation", "fence", "parents", "children"),
    *("created_at", "enqueued_at", "due_at", "expires_at", "finished_at", "stop_reason", "last_error"),
    *("task", "function", "queue", "ordinary_queue", "requires", "tags", "input", "merger"),
    *("interval_ms", "flex_ms", "initial_delay_ms", "begin_at", "override_at", "override_generation"),
    *("backoff_policy", "backoff_ms", "backoff_most_ms", "backoff_on_stop", "jitter", "max_attempts"),
    *("expedited", "trigger_update_ms", "trigger_most_ms"),
)
_in_order = itemgetter(*COLUMNS)
WHY_BORN_ENDED = {
    "FAILED": "what it was to wait for has failed",
    "CANCELLED": "what it was to wait for was cancelled",
    "QUOTA": "the hour's expedited works are used up",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One piece of new work. queue: where it waits; for expedited work, its first try alone, and ordinary_queue after
    that. parents: the ids that it waits for, in the order in which their outputs come to its input."""

    request: WorkRequest
    queue: str
    ordinary_queue: str | None = None
    parents: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """expedited_runs: how many works may be expedited in an hour. triggers: how many unfinished works may have any."""

    expedited_runs: int = 60
    triggers: int = triggering.MOST_WAITING


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """Under which work is born. in_turn: whether what is limited is counted after everybody else who counts it just
    now; nobody else counts then until this transaction ends, and so it is for short ones. looks: how the files are now
    that it waits for. reborn: of ids that were deleted just now, the generation and the fence, which go on: a run of
    the old work may be under way."""

    limits: Limits = field(default_factory=Limits)
    in_turn: bool = True
    looks: Mapping[FileTrigger, str] = field(default_factory=dict)
    reborn: Mapping[str, tuple[int, int]] = field(default_factory=dict)


ORDINARY = Circumstances()


def enqueue(connection: Connection, request: WorkRequest, *, queue: str, now: int) -> Work:
    """Keep the work. An id that exists already is left as it is, and returned. Raises Misused for a name in use."""
    if request.name is not None:
        holder = by_name(connection, request.name)
        if holder is not None and holder.id != request.id:
            raise Misused(f"there is work of the name {request.name!r}", hint="use enqueue_unique, with a policy")
    enqueue_all(connection, [Entry(request, queue)], now=now, name=request.name)
    return existing(connection, str(request.id))


def enqueue_all(
    connection: Connection,
    entries: Sequence[Entry],
    *,
    now: int,
    name: str | None = None,
    circumstances: Circumstances = ORDINARY,
) -> list[str]:
    """Keep all of these, under one name, or none; returns the ids that are new. An id that exists already is left as it
    is, also when somebody else has stored it at the same moment. What waits for failed or cancelled work is born failed
    or cancelled.

    Raises Misused for a circle, for more triggers than may wait, and for work that would expire before it may begin;
    Unknown for a parent that is nowhere.
    """
    hold_for_writing(connection)
    take_turn(connection, [entry.request for entry in entries], circumstances)
    new = _new(connection, entries)
    if not new:
        return []
    watching = [(str(entry.request.id), entry.request.triggers) for entry in new if entry.request.triggers]
    if watching:
        triggering.check_room(connection, len(watching), circumstances.limits.triggers)
    demoted, dropped = _beyond_quota(connection, new, now, circumstances.limits.expedited_runs)
    states = _states(connection, new, dropped)
    awaited = {parent for entry in new for parent in entry.parents}
    rows = []
    for entry in new:
        work_id = str(entry.request.id)
        row = specification(entry.request, entry.queue, entry.ordinary_queue)
        if work_id in demoted:
            row |= {"expedited": 0, "queue": entry.ordinary_queue or entry.queue, "ordinary_queue": None}
        elif work_id in dropped:
            row["ordinary_queue"] = None  # it takes nothing from the quota
        generation, fence = circumstances.reborn.get(work_id, (0, 0))
        row |= {"id": work_id, "name": name, "generation": generation, "fence": fence, "parents": len(entry.parents)}
        # What waited for the work of this id before still waits for it.
        row["children"] = 1 if work_id in awaited or work_id in circumstances.reborn else 0
        row |= _birth(entry.request, states.get(work_id, "ENQUEUED"), now, dropped=work_id in dropped)
        rows.append(_in_order(row))
    stored = _insert(connection, "backhaul_work", COLUMNS, rows, key="id")
    if len(stored) < len(new):
        new = [entry for entry in new if str(entry.request.id) in stored]
        watching = [one for one in watching if one[0] in stored]
    edges = [(str(entry.request.id), parent, n) for entry in new for n, parent in enumerate(entry.parents)]
    _insert(connection, "backhaul_work_parent", ("work_id", "parent_id", "position"), edges)
    insert_tags(connection, [(str(entry.request.id), entry.request.tags) for entry in new])
    insert_triggers(connection, watching, circumstances.looks)
    return [str(entry.request.id) for entry in new]


def take_turn(connection: Connection, requests: Iterable[WorkRequest], circumstances: Circumstances) -> None:
    """Where what is limited is counted in turn: before any row is held, and always in this order, so that two who count
    both meet nobody crosswise."""
    asked = list(requests) if circumstances.in_turn else []
    if any(request.triggers for request in asked):
        hold_word(connection, "triggers")
    if any(request.expedited for request in asked):
        hold_word(connection, "expedited")


def insert_tags(connection: Connection, tagged: Sequence[tuple[str, frozenset[str]]]) -> None:
    rows = [(tag, work_id) for work_id, tags in tagged for tag in sorted(tags)]
    _insert(connection, "backhaul_work_tag", ("tag", "work_id"), rows)


def insert_triggers(
    connection: Connection, watching: Sequence[tuple[str, Sequence[Any]]], looks: Mapping[FileTrigger, str]
) -> None:
    if watching:
        rows = triggering.rows_of(connection, watching, looks)
        _insert(connection, "backhaul_work_trigger", triggering.COLUMNS, rows)


def specification(request: WorkRequest, queue: str, ordinary_queue: str | None) -> dict[str, Any]:
    """The columns that say what is to be done, and how; an update replaces them."""
    backoff = request.backoff
    return {
        "task": request.task,
        "function": request.function,
        "queue": queue,
        "ordinary_queue": ordinary_queue,
        "requires": _listed(request.requires),
        "tags": _listed(request.tags),
        "input": request.input_text,
        "merger": request.merger,
        "interval_ms": request.interval_ms,
        "flex_ms": request.flex_ms,
        "initial_delay_ms": request.initial_delay_ms,
        "begin_at": request.begin_at,
        "override_at": request.override_at,
        "override_generation": 0,
        "backoff_policy": backoff.policy,
        "backoff_ms": backoff.initial_ms,
        "backoff_most_ms": backoff.most_ms,
        "backoff_on_stop": int(request.backoff_on_stop),
        "jitter": round(backoff.jitter * 100),
        "max_attempts": request.max_attempts,
        "expedited": int(request.expedited is not None),
        "trigger_update_ms": request.trigger_update_ms,
        "trigger_most_ms": request.trigger_most_ms,
    }


def _listed(words: frozenset[str]) -> str:
    return msgspec.json.encode(sorted(words)).decode() if words else "[]"


def _new(connection: Connection, entries: Sequence[Entry]) -> list[Entry]:
    """Those whose ids are not there yet, each once."""
    first: dict[str, Entry] = {}
    for entry in entries:
        first.setdefault(str(entry.request.id), entry)
    there = select(table.c.id).where(among(connection, table.c.id, list(first)))
    for work_id in connection.scalars(there):
        del first[work_id]
    return list(first.values())


def _states(connection: Connection, new: Sequence[Entry], dropped: frozenset[str]) -> dict[str, State]:
    if not dropped and not any(entry.parents for entry in new):
        return {}
    parents = {str(entry.request.id): entry.parents for entry in new}
    outside = dict.fromkeys(parent for entry in new for parent in entry.parents if parent not in parents)
    return born(parents, dict.fromkeys(dropped, "CANCELLED"), attach(connection, list(outside)))


def _beyond_quota(
    connection: Connection, new: Sequence[Entry], now: int, most: int
) -> tuple[frozenset[str], frozenset[str]]:
    """The ids that become ordinary work, and those that are dropped."""
    asked = [entry.request for entry in new if entry.request.expedited]
    if not asked:
        return frozenset(), frozenset()
    lately = select(func.count()).where(table.c.ordinary_queue.is_not(None), table.c.created_at > now - HOUR_MS)
    left = max(0, most - (connection.scalar(lately) or 0))
    beyond = asked[left:]
    dropped = frozenset(str(request.id) for request in beyond if request.expedited == "drop")
    return frozenset(str(request.id) for request in beyond) - dropped, dropped


def _birth(request: WorkRequest, state: State, now: int, *, dropped: bool) -> dict[str, Any]:
    ended = state in FINISHED
    return {
        "state": state,
        "created_at": now,
        "enqueued_at": now,
        "due_at": NEVER if state == "BLOCKED" else first_due(request, now),
        "expires_at": expiry(request, now),
        "finished_at": now if ended else None,
        "stop_reason": "QUOTA" if dropped else None,
        "last_error": WHY_BORN_ENDED["QUOTA" if dropped else state] if ended else None,
    }


def _insert(
    connection: Connection, into: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]], *, key: str = "work_id"
) -> set[str]:
    """Past SQLAlchemy, whose own way costs as much again as the database's. Returns the keys of what was stored."""
    names, stored = ", ".join(columns), set[str]()
    for at in range(0, len(rows), AT_ONCE):
        some = list(rows[at : at + AT_ONCE])
        if on_postgresql(connection):
            told = msgspec.json.encode([dict(zip(columns, row, strict=True)) for row in some]).decode()
            source = f"SELECT {names} FROM json_populate_recordset(CAST(NULL AS {into}), CAST(? AS json))"  # noqa: S608
            said = f"INSERT INTO {into} ({names}) {source} ON CONFLICT DO NOTHING RETURNING {key}"
            stored.update(run(connection, said, (told,)).scalars())
        else:
            places, varying = _places(some)
            given: list[Any] = some if len(varying) == len(columns) else list(map(itemgetter(*varying), some))
            statement = f"INSERT INTO {into} ({names}) VALUES ({', '.join(places)}) ON CONFLICT DO NOTHING"  # noqa: S608
            run(connection, statement, given)
            at_key = columns.index(key)  # who writes is alone, and has looked for them
            stored.update(row[at_key] for row in some)
    return stored


def _places(rows: Sequence[tuple[Any, ...]]) -> tuple[list[str], list[int]]:
    """What stands in VALUES for each column, and which of them are given with each row. A number, or nothing, that is
    the same in all of many rows is said once: to give each row its forty values takes longer than to store them."""
    if len(rows) < MANY:
        return ["?"] * len(rows[0]), list(range(len(rows[0])))
    places, varying = [], []
    for at, column in enumerate(zip(*rows, strict=True)):
        first = column[0]
        if (first is None or type(first) is int) and column.count(first) == len(rows):
            places.append("NULL" if first is None else str(first))
        else:
            places.append("?")
            varying.append(at)
    return places, varying
